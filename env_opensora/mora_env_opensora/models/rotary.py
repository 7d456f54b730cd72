"""3D rotary position embedding: a third of each head for t, h and w, each in the rotate-half convention."""

from __future__ import annotations

import torch
from torch import Tensor

_BASE = 10000.0


def rotary_angles(
    grid: tuple[int, int, int], scales: tuple[float, float, float], head_dim: int, device: torch.device | str
) -> Tensor:
    """Angles of every token, float32 (N, head_dim), tokens ordered t, h, w with w fastest.

    Args:
        grid: tokens along (t, h, w); N is their product.
        scales: interpolation scale per axis; positions are integer indices divided by it.
        head_dim: K, a multiple of 6.
    """
    third = head_dim // 3
    inverse = 1.0 / _BASE ** (torch.arange(0, third, 2, dtype=torch.float32, device=device) / third)
    axes = []
    for axis, (length, scale) in enumerate(zip(grid, scales, strict=True)):
        positions = torch.arange(length, dtype=torch.float32, device=device) / scale
        angles = torch.outer(positions, inverse).repeat(1, 2)  # both halves of an axis's third rotate by the same angle
        shape = [1, 1, 1, third]
        shape[axis] = length
        axes.append(angles.view(shape).expand(*grid, third))
    return torch.cat(axes, dim=-1).reshape(-1, head_dim)


def rotary_tables(angles_NK: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(cos, signed sin), each (N, K) of `dtype`.

    The angles are rounded to `dtype` before cosine and sine. In bfloat16 this loses precision for large angles, but
    the published bfloat16 checkpoints were trained with it.
    The sine of each first half includes the minus sign of rotate-half, which saves a negation per token.
    """
    angles = angles_NK.to(dtype)
    sin = angles.sin().unflatten(-1, (3, 2, -1)).clone()
    sin[:, :, 0].neg_()
    return angles.cos(), sin.flatten(-3)


def rotate(tokens: Tensor, cos_NK: Tensor, sin_NK: Tensor) -> Tensor:
    """Rotate `tokens` (..., N, K) by the tables of `rotary_tables`; same shape and dtype."""
    halves = tokens.unflatten(-1, (3, 2, -1))
    return tokens * cos_NK + halves.flip(-2).flatten(-3) * sin_NK
