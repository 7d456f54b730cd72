"""Given frames as conditioning of `OpenSoraInpaint`: indices, the masked clip's latents, the mask in latent layout.

It needs only torch. The training objective and the pipelines both use it, so that they condition in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mora_env_opensora.models import CausalVAEModel, InputError

LATENT_SCALE = 0.18215  # latents of the diffusion model = this * a sample of the autoencoder's posterior
FRAMES_PER_LATENT = 4  # except in the first; also the number of the mask's channels
SIDE_MULTIPLE = 16  # 8 pixels per latent cell, 2 cells per patch


@dataclass(frozen=True)
class ClipSize:
    """Frames, height and width in pixels of a clip that divides evenly into latent cells and patches.

    Raises:
        InputError: frames are not 4k + 1, or a side is not a multiple of 16.
    """

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.frames < 1 or self.frames % FRAMES_PER_LATENT != 1:
            below = max(self.frames - 1, 0) // FRAMES_PER_LATENT * FRAMES_PER_LATENT + 1
            raise InputError(f"num_frames: expected 4k + 1, got {self.frames}; {below} would do")
        for name, side in (("height", self.height), ("width", self.width)):
            if side < SIDE_MULTIPLE or side % SIDE_MULTIPLE:
                nearest = max(round(side / SIDE_MULTIPLE), 1) * SIDE_MULTIPLE
                raise InputError(f"{name}: expected a multiple of {SIDE_MULTIPLE}, got {side}; {nearest} is nearest")

    @property
    def latent_frames(self) -> int:
        return (self.frames - 1) // FRAMES_PER_LATENT + 1

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape (C, T, h, w) of one clip's latents."""
        return (4, self.latent_frames, self.height // 8, self.width // 8)


def frame_mask(frames: int, given: Sequence[int]) -> Tensor:
    """Mask, float32 (F,): 0 at given frames, 1 at frames to generate. Negative indices count from the end.

    Raises:
        InputError: an index is outside the clip.
    """
    mask = torch.ones(frames)
    for index in given:
        if not -frames <= index < frames:
            raise InputError(f"given frame: expected an index from {-frames} to {frames - 1}, got {index}")
        mask[index] = 0.0
    return mask


def latent_mask(mask_BF: Tensor, height: int, width: int) -> Tensor:
    """Pixel-frame masks (B, F) -> (B, 4, T, h, w), constant over each frame.

    The first frame is repeated four times, then the sequence of length 4T is read as (4, T): mask[k, l] = s[k*T + l].
    This order of time and channel differs from the autoencoder's, but the checkpoint was trained with it.
    """
    sequence = torch.cat([mask_BF[:, :1].expand(-1, FRAMES_PER_LATENT - 1), mask_BF], dim=1)
    layout = sequence.unflatten(1, (FRAMES_PER_LATENT, -1))
    return layout[..., None, None].expand(-1, -1, -1, height, width)


def place_frames(images: Sequence[Tensor], given: Sequence[int], frames: int) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] at their indices of an otherwise zero (mid-grey) clip (B, 3, F, H, W).

    Differentiable with respect to the images.
    """
    if not images or len(images) != len(given):
        raise InputError(f"given frames: expected one image for each of {len(given)} indices, got {len(images)}")
    at = {index % frames: image for image, index in zip(images, given, strict=True)}
    empty = torch.zeros_like(images[0])
    return torch.stack([at.get(index, empty) for index in range(frames)], dim=2)


def masked_latents(
    vae: CausalVAEModel, masked_clip: Tensor, noise: Tensor, *, given: Sequence[int] | None = None
) -> Tensor:
    """Scaled posterior sample of the whole masked clip (B, 3, F, H, W) -> (B, 4, T, h, w), in the dtype of the vae.

    Upstream also uses a sample, not the mode, to train and to sample.

    Args:
        noise: standard normal of the result's shape.
        given: indices of the frames that are not grey, which spares the work on chunks of grey frames; see
            `CausalVAEModel.encode`.
    """
    return LATENT_SCALE * vae.encode(masked_clip, given=given).at(noise)


def fit_image(images: Tensor, height: int, width: int) -> Tensor:
    """(B, 3, h, w) -> (B, 3, height, width): scaled to cover, then cropped at the centre; differentiable.

    An image of the right size is returned unchanged.

    Raises:
        InputError: the shape is not (B, 3, h, w).
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(f"images: expected float (B, 3, H, W) in [-1, 1], got {images.dtype} {tuple(images.shape)}")
    own_height, own_width = images.shape[-2:]
    if (own_height, own_width) == (height, width):
        return images
    scale = max(height / own_height, width / own_width)
    covering = (max(height, round(own_height * scale)), max(width, round(own_width * scale)))
    larger = F.interpolate(images, size=covering, mode="bilinear", antialias=True)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    return larger[..., top : top + height, left : left + width]
