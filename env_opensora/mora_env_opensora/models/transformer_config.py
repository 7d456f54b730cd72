"""Config of the two diffusion transformers: upstream's keys, checked.

A key missing in a config gets the value of the published OpenSoraT2V-ROPE-L/122, not upstream's class default, which
describes another network. Published configs have all keys, because upstream always writes them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mora_env_opensora.models.config_schema import OMIT, ConfigSchema


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(ConfigSchema):
    """Everything that shapes `OpenSoraT2V`. Lengths are in latent cells, not pixels."""

    num_attention_heads: int = 24
    attention_head_dim: int = 96
    in_channels: int = 4
    out_channels: int | None = 4
    num_layers: int = 32
    cross_attention_dim: int | None = 2304
    attention_bias: bool = True
    sample_size: tuple[int, int] = (60, 80)
    sample_size_t: int = 24
    patch_size: int = 2
    norm_eps: float = 1e-6
    caption_channels: int = 4096
    interpolation_scale_t: float | None = 1.0
    interpolation_scale_h: float | None = 1.0
    interpolation_scale_w: float | None = 1.0
    use_rope: bool = True

    model_name: ClassVar[str] = "OpenSoraT2V"
    accepted_class_names: ClassVar[tuple[str, ...]] = ("OpenSoraT2V",)
    fixed: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "dropout": (0.0,),
        "patch_size_t": (1,),
        "activation_fn": ("gelu-approximate",),
        "norm_type": ("ada_norm_single",),
        "norm_elementwise_affine": (False,),
        "attention_type": ("default",),
        "downsampler": (None,),
        "num_vector_embeds": (None,),
        "use_linear_projection": (False,),
        "only_cross_attention": (False,),
        "double_self_attention": (False,),
        "upcast_attention": (False,),
        "use_additional_conditions": (False, None),  # upstream overwrites any value with False
        # These choose a kernel for the same attention; here it is always scaled_dot_product_attention.
        "attention_mode": ("xformers", "math", "flash"),
    }
    # In turn: without effect for this norm type; a patch for training; derived at run time.
    ignored: ClassVar[Mapping[str, object]] = {
        "num_embeds_ada_norm": 1000,
        "norm_num_groups": 32,
        "use_stable_fp32": False,
        "hidden_size": OMIT,
    }

    def __post_init__(self) -> None:
        self.require_positive_int(
            "num_attention_heads", "attention_head_dim", "in_channels", "num_layers", "sample_size_t", "patch_size",
            "caption_channels",
        )  # fmt: skip
        self.require_bool("attention_bias", "use_rope")
        self.require(
            isinstance(self.sample_size, tuple) and len(self.sample_size) == 2
            and all(type(side) is int and side >= self.patch_size for side in self.sample_size),
            "sample_size", f"[height, width] in latent cells, each at least patch_size = {self.patch_size}",
        )  # fmt: skip
        self.require(
            self.out_channels is None or (type(self.out_channels) is int and self.out_channels > 0),
            "out_channels", "a positive integer or null",
        )  # fmt: skip
        self.require(isinstance(self.norm_eps, float) and self.norm_eps > 0, "norm_eps", "a positive number")
        self.require(
            self.cross_attention_dim in (None, self.width),
            "cross_attention_dim", f"heads * head_dim = {self.width}, the output width of the caption projection",
        )  # fmt: skip
        for key in ("interpolation_scale_t", "interpolation_scale_h", "interpolation_scale_w"):
            scale = getattr(self, key)
            self.require(
                scale is None or (isinstance(scale, (int, float)) and not isinstance(scale, bool) and scale > 0),
                key, "a positive number or null",
            )  # fmt: skip
        divisor = 6 if self.use_rope else 4
        checked = "attention_head_dim" if self.use_rope else "num_attention_heads"
        self.require(
            (self.attention_head_dim if self.use_rope else self.width) % divisor == 0, checked,
            "a head_dim divisible by 6 (three rotary axes of two halves)" if self.use_rope
            else "heads * head_dim divisible by 4 (sine and cosine of two axes)",
        )  # fmt: skip

    @property
    def width(self) -> int:
        """D, the width of a token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def output_channels(self) -> int:
        return self.out_channels if self.out_channels is not None else self.in_channels

    @property
    def interpolation_scales(self) -> tuple[float, float, float]:
        """Scales (t, h, w); null for an axis means that it scales with the sample size."""
        frames, (height, width) = self.sample_size_t, self.sample_size
        default_t = (frames - 1) // 16 + 1 if frames % 2 == 1 else frames / 16
        scales = (self.interpolation_scale_t, self.interpolation_scale_h, self.interpolation_scale_w)
        defaults = (default_t, height / 30, width / 40)
        return tuple(float(d if s is None else s) for s, d in zip(scales, defaults, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class InpaintConfig(TransformerConfig):
    """Config of `OpenSoraInpaint`: the mask has `vae_scale_factor_t` channels, one per frame of a latent frame."""

    vae_scale_factor_t: int = 4

    model_name: ClassVar[str] = "OpenSoraInpaint"
    accepted_class_names: ClassVar[tuple[str, ...]] = ("OpenSoraInpaint",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            self.vae_scale_factor_t == self.in_channels,
            "vae_scale_factor_t", f"in_channels = {self.in_channels}, the input channels of the mask's patch embedding",
        )  # fmt: skip
