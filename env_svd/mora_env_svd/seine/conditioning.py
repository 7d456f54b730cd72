"""Given frames as the UNet's condition: masked latents.

Every frame goes through the autoencoder as a picture of its own, so a frame's latents depend on that frame alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mora_env_svd.clip_pipeline import BeforePiece, nothing_before
from mora_env_svd.clip_size import ClipSize
from mora_env_svd.errors import InputError
from mora_env_svd.frame_coder import FrameCoder, Posterior


def scaled_sample(moments: Tensor, noise: Tensor) -> Tensor:
    """Scaled latents of a posterior given by its moments (N, 8, h, w)."""
    return Posterior.of_moments(moments).scaled(noise)


class MaskedFrameCoder(FrameCoder):
    """Knows the posterior of a grey frame too."""

    def __init__(self, vae: Any, chunk: int = 1, *, recomputes: bool = False) -> None:
        super().__init__(vae, chunk, recomputes=recomputes)
        self._grey: dict[tuple[int, int], Posterior] = {}

    @torch.no_grad()
    def grey(self, size: ClipSize) -> Posterior:
        """Of one frame to generate, which is grey in the masked clip; computed once for each size."""
        key = (size.height, size.width)
        if key not in self._grey:
            self._grey[key] = self.posterior(torch.zeros(1, 3, *key))
        return self._grey[key]


def masked_posterior(
    coder: MaskedFrameCoder,
    size: ClipSize,
    pictures: Tensor,
    given: Sequence[int],
    before_each: BeforePiece = nothing_before,
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


def frames_of(clip: Tensor) -> Tensor:
    """Latents (1, 4, F, h, w) -> (F, 4, h, w)."""
    return clip[0].transpose(0, 1)


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
