"""The UNet's config: upstream's keys as a frozen dataclass, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from mora_env_svd.errors import ConfigError

DOWN_WITH_TEXT, DOWN = "CrossAttnDownBlock3D", "DownBlock3D"
UP_WITH_TEXT, UP = "CrossAttnUpBlock3D", "UpBlock3D"
LEAST_HEAD_WIDTH = 32  # channels that the rotary embedding turns in each head
# Upstream's keys for which the checkpoint has one value; another value would be another network.
_FIXED: dict[str, object] = {
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_type": "UNetMidBlock3DCrossAttn",
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "only_cross_attention": False,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "class_embed_type": None,
    "num_class_embeds": None,
    "upcast_attention": False,
    "resnet_time_scale_shift": "default",
    "use_first_frame": False,
    "use_relative_position": False,
}


@dataclass(frozen=True)
class SeineConfig:
    """Keys that shape the network; the published values are the defaults.

    Raises:
        ConfigError: values that do not fit together.
    """

    in_channels: int = 9
    out_channels: int = 4
    down_block_types: tuple[str, ...] = (DOWN_WITH_TEXT, DOWN_WITH_TEXT, DOWN_WITH_TEXT, DOWN)
    up_block_types: tuple[str, ...] = (UP, UP_WITH_TEXT, UP_WITH_TEXT, UP_WITH_TEXT)
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 768
    attention_head_dim: int | tuple[int, ...] = 8  # despite its name, the number of heads

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Read upstream's keys. `sample_size` and keys that upstream does not have are ignored.

        Raises:
            ConfigError: a key of upstream has a value that is not supported, or values do not fit together.
        """
        for key, supported in _FIXED.items():
            value = values.get(key, supported)
            if value != supported or isinstance(value, bool) != isinstance(supported, bool):
                raise ConfigError(f"SEINE's UNet: `{key}` = {value!r} is not supported; expected {supported!r}")
        own = {field.name for field in fields(cls)}
        return cls(**{name: _frozen(value) for name, value in values.items() if name in own})

    def to_dict(self) -> dict[str, Any]:
        """Upstream's keys, ready for JSON."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in (own | _FIXED).items()}

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim"):
            self._require(_is_size(getattr(self, name)), name, "a positive integer")
        self._require(isinstance(self.norm_eps, (int, float)) and self.norm_eps > 0, "norm_eps", "a positive number")
        widths = self.block_out_channels
        sound = isinstance(widths, tuple) and len(widths) > 0 and all(map(_is_size, widths))
        self._require(sound, "block_out_channels", "a list of positive integers")
        self._check_types()
        heads = self.attention_head_dim
        listed = (heads,) * self.num_levels if isinstance(heads, int) else heads
        sound = isinstance(listed, tuple) and len(listed) == self.num_levels and all(map(_is_size, listed))
        self._require(sound, "attention_head_dim", f"a number of heads, or {self.num_levels} of them")
        self._check_heads()
        self._check_groups()

    @property
    def num_levels(self) -> int:
        return len(self.block_out_channels)

    @property
    def num_heads(self) -> tuple[int, ...]:
        """Number of attention heads of each level, from the largest picture to the smallest."""
        heads = self.attention_head_dim
        return (heads,) * self.num_levels if isinstance(heads, int) else heads

    @property
    def time_width(self) -> int:
        return 4 * self.block_out_channels[0]

    def skip_widths(self) -> list[int]:
        """Widths of the tensors that the way down leaves for the way up, in the order in which they are made."""
        found = [self.block_out_channels[0]]
        for level, width in enumerate(self.block_out_channels):
            found += [width] * (self.layers_per_block + (level < self.num_levels - 1))
        return found

    def _check_types(self) -> None:
        for name, allowed in (("down_block_types", (DOWN_WITH_TEXT, DOWN)), ("up_block_types", (UP_WITH_TEXT, UP))):
            types = getattr(self, name)
            sound = isinstance(types, tuple) and len(types) == self.num_levels and set(types) <= set(allowed)
            self._require(sound, name, f"{self.num_levels} (one for each width) of {' or '.join(allowed)}")

    def _check_heads(self) -> None:
        last = self.num_levels - 1
        for level, (width, heads) in enumerate(zip(self.block_out_channels, self.num_heads, strict=True)):
            attends = (
                self.down_block_types[level] == DOWN_WITH_TEXT
                or self.up_block_types[last - level] == UP_WITH_TEXT
                or level == last  # the block in the middle
            )
            if attends and (width % heads or width // heads < LEAST_HEAD_WIDTH or width // heads % 2):
                raise ConfigError(
                    f"SEINE's UNet: {heads} heads (`attention_head_dim`) on {width} channels: expected heads of equal, "
                    f"even width, at least {LEAST_HEAD_WIDTH}"
                )

    def _check_groups(self) -> None:
        widths, skips = self.block_out_channels, self.skip_widths()
        normed = [*widths]
        below = widths[-1]
        for width in reversed(widths):
            for _ in range(self.layers_per_block + 1):
                normed.append(below + skips.pop())
                below = width
        for width in normed:
            if width % self.norm_num_groups:
                raise ConfigError(
                    f"SEINE's UNet: `norm_num_groups` = {self.norm_num_groups}; expected a divisor of every width, but "
                    f"{width} channels are normalised together"
                )

    def _require(self, holds: bool, key: str, expected: str) -> None:
        if not holds:
            raise ConfigError(f"SEINE's UNet: `{key}` = {getattr(self, key)!r}; expected {expected}")


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
