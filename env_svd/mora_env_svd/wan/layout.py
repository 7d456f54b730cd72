"""Which layout a model has, read from the configs in its folder. It needs no torch: options are checked with it.

- Wan 2.1: the model sees the noisy latents, a mask and the latents of the given frames side by side in its channels,
  and CLIP's tokens of the given pictures next to the text. FLF2V is the same with a first and a last frame.
- Wan 2.2 A14B: as Wan 2.1, without CLIP, and with a transformer for high noise levels and one for low ones.
- Wan 2.2 TI2V: the first frame's latents replace the first noisy ones, and their timestep is 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mora_environment.weights.presence import cached_folder

from mora_env_svd.errors import ConfigError, InputError
from mora_env_svd.wan.published import CONFIGS

FRAMES_PER_CELL = 4  # frames of one latent frame, after the first, which is a latent frame of its own
_PATCH = [1, 2, 2]
_NEEDED = ("model_index", "transformer", "vae")  # configs that tell the layout


@dataclass(frozen=True)
class WanLayout:
    """What differs between the layouts.

    Args:
        latent_channels: of the noisy latents and of the autoencoder.
        pixels_per_cell: side of a latent's square of pixels.
        replaces_first: the first frame's latents replace the first noisy ones (Wan 2.2 TI2V).
        has_image_encoder: the model attends to CLIP's tokens of the given pictures (Wan 2.1).
        last: whether a last frame is given too: always (FLF2V), never, or as the caller wants (A14B).
        boundary_ratio: of two transformers, the first is for timesteps from this share of noise alone on.
    """

    latent_channels: int
    pixels_per_cell: int
    replaces_first: bool
    has_image_encoder: bool
    last: Literal["always", "optional", "never"]
    boundary_ratio: float | None = None

    @property
    def trains(self) -> bool:
        """Whether it can be in a chain, which gives it one picture and trains one model."""
        return self.last != "always" and self.boundary_ratio is None

    @property
    def size_multiple(self) -> int:
        """Height and width are multiples of this number of pixels: a patch is two latents wide."""
        return 2 * self.pixels_per_cell

    @property
    def least_given(self) -> int:
        """Least number of given pictures of a clip."""
        return 2 if self.last == "always" else 1


@dataclass(frozen=True)
class WanSize:
    """Size of a clip in frames and pixels.

    Raises:
        InputError: the number of frames is not 4k + 1, or a side does not fit the layout.
    """

    layout: WanLayout
    num_frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.num_frames <= FRAMES_PER_CELL or self.num_frames % FRAMES_PER_CELL != 1:
            raise InputError(f"num_frames: expected 4k + 1, at least 5, got {self.num_frames}")
        multiple = self.layout.size_multiple
        for name, side in (("height", self.height), ("width", self.width)):
            if side < multiple or side % multiple:
                raise InputError(f"{name}: expected a multiple of {multiple} for this model, got {side}")

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape (C, f, h, w) of one clip's latents."""
        cell = self.layout.pixels_per_cell
        num_latent_frames = (self.num_frames - 1) // FRAMES_PER_CELL + 1
        return (self.layout.latent_channels, num_latent_frames, self.height // cell, self.width // cell)


Configs = Mapping[str, Mapping[str, Any]]
"""Of a model, by folder: its config.json. `model_index` and `scheduler` are there too."""


def model_configs(model: str) -> Configs | None:
    """The configs of a folder, of a downloaded Hub id or of a published one; None: the model is none of these."""
    if Path(model).is_dir():
        return _configs_in(Path(model))
    cached, published = cached_folder(model), CONFIGS.get(model, {})
    found = published if cached is None else {**published, **_configs_in(cached)}
    # a download that has only begun tells no layout
    return found if all(name in found for name in _NEEDED) else None


def _configs_in(folder: Path) -> Configs:
    paths = {path.parent.name: path for path in folder.glob("*/config.json")}
    paths |= {"model_index": folder / "model_index.json", "scheduler": folder / "scheduler" / "scheduler_config.json"}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}


def layout_of(configs: Configs, model: str) -> WanLayout:
    """The layout of a model.

    Raises:
        ConfigError: it is no layout of this kind; the message names what it is.
    """
    lacking = [name for name in _NEEDED if name not in configs]
    if lacking:
        raise ConfigError(f"`{model}`: expected the configs of a Wan model, {', '.join(lacking)} is missing")
    index, transformer, vae = (configs[name] for name in _NEEDED)
    channels, replaces_first = int(vae.get("z_dim", 16)), bool(index.get("expand_timesteps"))
    has_image_encoder = transformer.get("image_dim") is not None
    boundary_ratio, num_inputs = index.get("boundary_ratio"), int(transformer.get("in_channels", 16))
    concatenated = 2 * channels + FRAMES_PER_CELL  # noisy latents, mask, and latents of the given frames
    is_plain = not has_image_encoder and boundary_ratio is None
    fits = (num_inputs == channels and is_plain) if replaces_first else num_inputs == concatenated
    patch = list(transformer.get("patch_size", _PATCH))
    if not fits or patch != _PATCH:
        raise ConfigError(
            f"`{model}`: expected an image-to-video model of Wan 2.1 or Wan 2.2 A14B ({concatenated} input channels), "
            f"or Wan 2.2 TI2V (expand_timesteps, {channels} input channels, one transformer, no image encoder), with "
            f"patches {_PATCH}; got {num_inputs} input channels, {'an' if has_image_encoder else 'no'} image encoder, "
            f"expand_timesteps {str(replaces_first).lower()}, boundary_ratio {boundary_ratio}, patches {patch}"
        )
    needs_last = transformer.get("pos_embed_seq_len") is not None
    takes_last = not has_image_encoder and not replaces_first
    return WanLayout(
        latent_channels=channels,
        pixels_per_cell=int(vae.get("scale_factor_spatial", 8)),
        replaces_first=replaces_first,
        has_image_encoder=has_image_encoder,
        last="always" if needs_last else "optional" if takes_last else "never",
        boundary_ratio=boundary_ratio,
    )
