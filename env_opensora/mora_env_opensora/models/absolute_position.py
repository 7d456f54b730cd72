"""Sine-cosine positions that are added to the tokens when a config says `use_rope: false`."""

from __future__ import annotations

import torch
from torch import Tensor


def _sincos(width: int, positions: Tensor) -> Tensor:
    """[sin, cos] of float64 positions (...,) -> (..., width)."""
    half = width // 2
    omega = 10000.0 ** -(torch.arange(half, dtype=torch.float64, device=positions.device) / half)
    angles = positions[..., None] * omega
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def spatial_positions(
    grid: tuple[int, int], trained_grid: tuple[int, int], scales: tuple[float, float], width: int, device: torch.device
) -> Tensor:
    """float32 (h*w, D), positions rescaled to the training grid; the half for w comes first.

    Args:
        grid: current tokens (h, w).
        trained_grid: tokens (h, w) at the config's sample_size.
        scales: interpolation (h, w).
    """
    (height, width_tokens), (trained_h, trained_w) = grid, trained_grid
    y = torch.arange(height, dtype=torch.float64, device=device) / (height / trained_h) / scales[0]
    x = torch.arange(width_tokens, dtype=torch.float64, device=device) / (width_tokens / trained_w) / scales[1]
    e_w = _sincos(width // 2, x)[None].expand(height, -1, -1)
    e_h = _sincos(width // 2, y)[:, None].expand(-1, width_tokens, -1)
    return torch.cat([e_w, e_h], dim=-1).flatten(0, 1).float()


def temporal_positions(frames: int, trained_frames: int, scale: float, width: int, device: torch.device) -> Tensor:
    """Positions along time, float32 (T, D)."""
    t = torch.arange(frames, dtype=torch.float64, device=device) / (frames / trained_frames) / scale
    return _sincos(width, t).float()
