"""Given frames as the UNet's condition: sizes, the autoencoder, masked latents.

Every frame goes through the autoencoder as a picture of its own, so a frame's latents depend on that frame alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mora_env_svd.errors import InputError

LATENT_SCALE = 0.18215  # latents of the diffusion model = this * a sample of the autoencoder's posterior
PIXELS_PER_CELL = 8
LATENT_CHANNELS = 4


@dataclass(frozen=True)
class ClipSize:
    """Frames, height and width in pixels.

    Raises:
        InputError: a side is no multiple of 8, or there is no frame.
    """

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InputError(f"num_frames: expected at least 1, got {self.frames}")
        for name, side in (("height", self.height), ("width", self.width)):
            if side < PIXELS_PER_CELL or side % PIXELS_PER_CELL:
                nearest = max(round(side / PIXELS_PER_CELL), 1) * PIXELS_PER_CELL
                raise InputError(f"{name}: expected a multiple of {PIXELS_PER_CELL}, got {side}; {nearest} is nearest")

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of the latents."""
        return self.height // PIXELS_PER_CELL, self.width // PIXELS_PER_CELL

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape (C, F, h, w) of one clip's latents."""
        return (LATENT_CHANNELS, self.frames, *self.cells)


class Posterior(NamedTuple):
    """What the autoencoder says about pictures, unscaled: mean and standard deviation (N, 4, h, w), float32."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of_moments(cls, moments: Tensor) -> Posterior:
        """From mean and log variance (N, 8, h, w)."""
        mean, log_variance = moments.float().chunk(2, dim=1)
        return cls(mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)))

    def scaled(self, noise: Tensor) -> Tensor:
        """A sample, not the mode: upstream trains and samples with samples."""
        return LATENT_SCALE * (self.mean + self.std * noise.to(self.mean))


def scaled_sample(moments: Tensor, noise: Tensor) -> Tensor:
    """Scaled latents of a posterior given by its moments (N, 8, h, w)."""
    return Posterior.of_moments(moments).scaled(noise)


class FrameCoder:
    """Stable Diffusion's autoencoder on frames.

    Args:
        vae: a frozen `AutoencoderKL` of diffusers.
        chunk: number of frames that are decoded at once.
        recomputes: keep no activations of it for the backward pass, but compute them again.
    """

    def __init__(self, vae: Any, chunk: int = 1, *, recomputes: bool = False) -> None:
        self._vae = vae
        self._chunk = chunk
        self._recomputes = recomputes
        self._grey: dict[tuple[int, int], Posterior] = {}

    @property
    def device(self) -> torch.device:
        found: torch.device = next(self._vae.parameters()).device
        return found

    @property
    def _dtype(self) -> torch.dtype:
        found: torch.dtype = next(self._vae.parameters()).dtype
        return found

    def posterior(self, pictures: Tensor, before_each: Callable[[], None] = lambda: None) -> Posterior:
        """Of pictures (N, 3, H, W) in [-1, 1], each encoded alone; differentiable."""
        moments = []
        for picture in pictures.to(self.device, self._dtype).split(1):
            before_each()
            moments.append(self._run(self._moments, picture))
        return Posterior.of_moments(torch.cat(moments))

    def _moments(self, pictures: Tensor) -> Tensor:
        found: Tensor = self._vae.encode(pictures).latent_dist.parameters
        return found

    @torch.no_grad()
    def grey(self, size: ClipSize) -> Posterior:
        """Of one frame to generate, which is grey in the masked clip; computed once for each size."""
        key = (size.height, size.width)
        if key not in self._grey:
            self._grey[key] = self.posterior(torch.zeros(1, 3, *key))
        return self._grey[key]

    def decode(self, latents: Tensor) -> list[Tensor]:
        """Scaled latents (1, 4, F, h, w) -> pieces (n, 3, H, W) of the clip, about [-1, 1]; differentiable."""
        return [self.decoded(piece) for piece in self.pieces(latents)]

    def pieces(self, latents: Tensor) -> tuple[Tensor, ...]:
        """Scaled latents (1, 4, F, h, w) as pieces (n, 4, h, w) of consecutive frames."""
        return latents[0].transpose(0, 1).split(self._chunk)

    def decoded(self, piece: Tensor) -> Tensor:
        """The pixels (n, 3, H, W) of one piece."""
        unscaled = (piece / LATENT_SCALE).to(self.device, self._dtype)
        return self._run(self._pixels, unscaled)

    def _pixels(self, latents: Tensor) -> Tensor:
        found: Tensor = self._vae.decode(latents).sample
        return found

    def _run(self, function: Any, argument: Tensor) -> Tensor:
        if self._recomputes and torch.is_grad_enabled():
            found: Tensor = checkpoint(function, argument, use_reentrant=False)
            return found
        result: Tensor = function(argument)
        return result


def masked_posterior(
    coder: FrameCoder,
    size: ClipSize,
    pictures: Tensor,
    given: Sequence[int],
    before_each: Callable[[], None] = lambda: None,
) -> Posterior:
    """Of a masked clip: `pictures` (N, 3, H, W) at the frames `given`, grey elsewhere. Mean and std (F, 4, h, w).

    Args:
        before_each: called before each picture is encoded; it may raise.
    """
    return placed(coder.grey(size), coder.posterior(pictures, before_each), given, size.frames)


def placed(grey: Posterior, own: Posterior, given: Sequence[int], num_frames: int) -> Posterior:
    """The posteriors of given frames at their indices, and that of a grey frame elsewhere."""
    if own.mean.shape[0] != len(given):
        raise InputError(f"given frames: expected {len(given)} pictures, got {own.mean.shape[0]}")
    row = {index: number for number, index in enumerate(given)}

    def column(grey_part: Tensor, own_part: Tensor) -> Tensor:
        return torch.stack([own_part[row[f]] if f in row else grey_part[0] for f in range(num_frames)])

    return Posterior(column(grey.mean, own.mean), column(grey.std, own.std))


def as_clip(frames: Tensor) -> Tensor:
    """Latents (F, 4, h, w) -> (1, 4, F, h, w)."""
    return frames.transpose(0, 1)[None]


def fit_pictures(pictures: Tensor, size: ClipSize) -> Tensor:
    """Float (N, 3, h, w) -> (N, 3, H, W) of the clip: bilinear, without antialiasing, not keeping the aspect ratio.

    Raises:
        InputError: another shape or dtype.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
        raise InputError(
            f"images: expected float (B, 3, H, W) in [-1, 1], got {pictures.dtype} {tuple(pictures.shape)}"
        )
    if tuple(pictures.shape[-2:]) == (size.height, size.width):
        return pictures
    return F.interpolate(pictures, size=(size.height, size.width), mode="bilinear", align_corners=False)
