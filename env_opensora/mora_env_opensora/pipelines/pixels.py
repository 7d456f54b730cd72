"""Conversion between uint8 frames and the models' pixels in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mora_env_opensora.conditioning import LATENT_SCALE, fit_image
from mora_env_opensora.models import CausalVAEModel, InputError

Allocate = Callable[[Sequence[int], torch.dtype], Tensor]
"""Makes the uninitialised CPU tensor for a result, in ordinary or in shared memory."""
OnFrames = Callable[[int, Tensor], None]
"""Takes the index of the first frame, and frames uint8 (N, H, W, 3)."""


def ordinary_memory(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The default `Allocate`."""
    return torch.empty(tuple(shape), dtype=dtype)


def frames_to_pixels(frames: Tensor, height: int, width: int) -> Tensor:
    """uint8 (F, H, W, 3) -> float32 (F, 3, height, width) in [-1, 1], scaled to cover and cropped at the centre.

    Raises:
        InputError: `frames` has another dtype or shape.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or frames.shape[0] < 1:
        raise InputError(f"frames: expected uint8 (F >= 1, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    pixels = frames.permute(0, 3, 1, 2).contiguous().float()
    # by a tensor: CUDA multiplies by the reciprocal of a Python number, which rounds in another way than the CPU
    pixels = pixels / pixels.new_full((1,), 127.5) - 1.0
    return fit_image(pixels, height, width)


def pixels_to_frames(pixels: Tensor, allocate: Allocate = ordinary_memory) -> Tensor:
    """float (F, 3, H, W) in [-1, 1] -> uint8 (F, H, W, 3) on the CPU, clamped, and truncated as upstream."""
    scaled = (pixels.float() / 2 + 0.5).clamp(0, 1) * 255
    num_frames, channels, height, width = pixels.shape
    frames = allocate((num_frames, height, width, channels), torch.uint8)
    return frames.copy_(scaled.permute(0, 2, 3, 1))  # one copy changes order, dtype and place


def decode_pixels(vae: CausalVAEModel, latents: Tensor) -> Tensor:
    """Scaled latents of one clip (1, 4, T, h, w) -> (F, 3, H, W), about [-1, 1], not clamped; differentiable."""
    video = vae.decode(latents.to(vae.device) / LATENT_SCALE)
    return video[0].transpose(0, 1)


@torch.no_grad()
def decode_frames(
    vae: CausalVAEModel, latents: Tensor, allocate: Allocate = ordinary_memory, on_frames: OnFrames | None = None
) -> Tensor:
    """Scaled latents of one clip (1, 4, T, h, w) -> uint8 (F, H, W, 3) on the CPU.

    Args:
        on_frames: called with each chunk of frames as soon as it is decoded.
    """
    chunks: list[Tensor] = []
    for pixels in vae.decode_chunks(latents.to(vae.device) / LATENT_SCALE):
        chunks.append(pixels_to_frames(pixels[0].transpose(0, 1), allocate))
        if on_frames is not None:
            on_frames(sum(map(len, chunks[:-1])), chunks[-1])
    if len(chunks) == 1:
        return chunks[0]
    frames = allocate((sum(map(len, chunks)), *chunks[0].shape[1:]), torch.uint8)
    return torch.cat(chunks, out=frames)
