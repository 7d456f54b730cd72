"""The timestep's embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LONGEST_PERIOD = 10_000


def timestep_waves(timesteps: Tensor, width: int) -> Tensor:
    """Timesteps (B,) -> float32 (B, width): cosines, then sines."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Waves (B, width) -> (B, width_out)."""

    def __init__(self, width: int, width_out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, width_out)
        self.linear_2 = nn.Linear(width_out, width_out)

    def forward(self, waves: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(waves)))
