"""Conditioning of the blocks: adaLN-single modulation from the diffusion step, and the caption's projection."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FREQUENCIES = 128


def timestep_features(timestep_B: Tensor) -> Tensor:
    """Integer or float timesteps (B,) -> float32 (B, 256), cosines first."""
    index = torch.arange(_FREQUENCIES, dtype=torch.float32, device=timestep_B.device)
    frequencies = torch.exp(-math.log(10000.0) * index / _FREQUENCIES)
    angles = timestep_B.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class _TimestepEmbedder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(2 * _FREQUENCIES, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(features)))


class AdaLNSingle(nn.Module):
    """One modulation for all blocks; each block adds its own table to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb = nn.ModuleDict({"timestep_embedder": _TimestepEmbedder(width)})
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, timestep_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) -> (six (B, 6, D): shift, scale, gate of attention, then of the feed-forward; e (B, D))."""
        features = timestep_features(timestep_B).to(self.linear.weight.dtype)
        embedded = self.emb["timestep_embedder"](features)
        return self.linear(F.silu(embedded)).unflatten(-1, (6, -1)), embedded


class CaptionProjection(nn.Module):
    """Projects text encoder rows to the model's width."""

    def __init__(self, caption_channels: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(caption_channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, text: Tensor) -> Tensor:
        """(..., caption_channels) -> (..., D)."""
        return self.linear_2(F.gelu(self.linear_1(text), approximate="tanh"))
