"""Resizing and warping of AMT's features and flows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resized(x: Tensor, factor: float) -> Tensor:
    """Bilinear, without antialiasing."""
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def resized_flow(flow: Tensor, factor: float) -> Tensor:
    """A flow at another resolution, in pixels of that resolution."""
    return factor * resized(flow, factor)


def warped(images: Tensor, flow: Tensor) -> Tensor:
    """Images (N, C, H, W) sampled at each pixel plus its flow (N, 2, H, W); the border continues outside."""
    height, width = flow.shape[-2:]
    x = torch.linspace(-1.0, 1.0, width, device=flow.device).expand(height, width)
    y = torch.linspace(-1.0, 1.0, height, device=flow.device)[:, None].expand(height, width)
    half_size = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=flow.device)[:, None, None]
    grid = (torch.stack([x, y]) + flow / half_size).permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=True)
