"""The UNet's conditions of a clip: a picture twice, z, and numbers about the clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mora_env_svd.clip_size import ClipSize
from mora_env_svd.errors import InputError
from mora_env_svd.frame_coder import LATENT_SCALE, FrameCoder


@dataclass(frozen=True)
class ClipNumbers:
    """What the model is told about a clip."""

    fps: int = 7
    motion_bucket_id: int = 127
    noise_aug_strength: float = 0.02

    def time_ids(self, batch_size: int, like: Tensor) -> Tensor:
        """(B, 3); the model was trained with one frame a second less than the clip has."""
        row = torch.tensor([[self.fps - 1, self.motion_bucket_id, self.noise_aug_strength]], dtype=like.dtype)
        return row.expand(batch_size, -1).to(like.device)


class TemporalFrameCoder(FrameCoder):
    """Stable Video Diffusion's autoencoder, whose decoder looks at all frames of a piece."""

    def _unscaled(self, latents: Tensor) -> Tensor:
        return 1 / LATENT_SCALE * latents  # as the pipeline of diffusers does; a division rounds in another way

    def _pixels(self, latents: Tensor) -> Tensor:
        found: Tensor = self._vae.decode(latents, num_frames=len(latents)).sample
        return found

    def modes(self, pictures: Tensor) -> Tensor:
        """Unscaled latents (N, 4, h, w) of pictures (N, 3, H, W) in [-1, 1]: the mode of each posterior."""
        return self.posterior(pictures).mean


def with_rows(embeddings: Tensor, z: Tensor | None) -> Tensor:
    """Embeddings (B, 1, D) of pictures, each followed by z (rows, D): (B, 1 + rows, D).

    Raises:
        InputError: z has another width, or no rows.
    """
    if z is None:
        return embeddings
    width = embeddings.shape[-1]
    if z.ndim != 2 or z.shape[0] < 1 or z.shape[1] != width:
        raise InputError(f"z: expected (rows >= 1, {width}), got {tuple(z.shape)}")
    return torch.cat([embeddings, z.to(embeddings).expand(len(embeddings), -1, -1)], dim=1)


def fit_pictures(pictures: Tensor, size: ClipSize) -> Tensor:
    """Float (B, 3, h, w) -> (B, 3, H, W) of the clip: bilinear with antialiasing, not keeping the aspect ratio.

    Raises:
        InputError: another shape or dtype.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
        raise InputError(
            f"images: expected float (B, 3, H, W) in [-1, 1], got {pictures.dtype} {tuple(pictures.shape)}"
        )
    if tuple(pictures.shape[-2:]) == (size.height, size.width):
        return pictures
    return F.interpolate(pictures, size=(size.height, size.width), mode="bilinear", align_corners=False, antialias=True)


def signed(frames: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in [-1, 1].

    The colours of a pixel stay together in memory, as in the pipeline of diffusers, because convolutions round in
    another way when they do not.
    """
    # by a tensor: CUDA multiplies by the reciprocal of a Python number, which rounds in another way than the CPU
    pixels = frames.float()
    return (2.0 * (pixels / pixels.new_full((1,), 255.0)) - 1.0).permute(0, 3, 1, 2)


def resampled(image: Tensor, size: ClipSize) -> Tensor:
    """uint8 (h, w, 3) -> uint8 (H, W, 3) of the clip, by Pillow's Lanczos filter, as the pipeline of diffusers does."""
    from PIL import Image

    if tuple(image.shape[:2]) == (size.height, size.width):
        return image
    picture: Any = Image.fromarray(image.contiguous().cpu().numpy())
    resized = picture.resize((size.width, size.height), resample=Image.Resampling.LANCZOS)
    return torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).reshape(size.height, size.width, 3)
