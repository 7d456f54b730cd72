"""Attention over frames: rotary positions on the first 32 channels of each head, and a learned bias by distance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mora_env_svd.seine.models.attention import Attention

ROTARY_WIDTH = 32  # whatever the width of a head is
_NUM_BUCKETS = 32
_MAX_DISTANCE = 32


def rotary_frequencies() -> Tensor:
    """float32 (16,): 10000^(-2i/32)."""
    exponents = torch.arange(0, ROTARY_WIDTH, 2).float() / ROTARY_WIDTH
    return 1.0 / 10_000**exponents


def rotate(heads: Tensor, frequencies: Tensor) -> Tensor:
    """Turn neighbouring pairs of the first 32 channels of (..., F, d) by frame index times frequency.

    The angles, their cosines and sines have the dtype of `frequencies`.
    """
    positions = torch.arange(heads.shape[-2], device=heads.device).to(frequencies)
    angles = positions[:, None] * frequencies
    cosine, sine = angles.cos().to(heads), angles.sin().to(heads)
    turned, rest = heads[..., :ROTARY_WIDTH], heads[..., ROTARY_WIDTH:]
    even, odd = turned[..., 0::2], turned[..., 1::2]
    pairs = torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], dim=-1)
    return torch.cat([pairs.flatten(-2), rest], dim=-1)


class RotaryEmbedding(nn.Module):
    """Owns the frequencies, which every checkpoint lists once for each layer."""

    freqs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("freqs", rotary_frequencies())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the frequencies with the module, but in float32: half precision would round the angles."""
        super()._apply(fn, recurse)
        moved = self.freqs
        if moved.dtype != torch.float32:
            self.freqs = rotary_frequencies().to(moved.device)
        return self

    def forward(self, heads: Tensor) -> Tensor:
        return rotate(heads, self.freqs)


def distance_buckets(num_frames: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 (F, F): row of the bias table for each query frame and key frame.

    Keys after the query have the upper half of the rows. Distances below 8 have a row each; larger ones share rows on a
    logarithmic scale that ends at 32.
    """
    half = _NUM_BUCKETS // 2
    exact = half // 2
    frames = torch.arange(num_frames, device=device)
    ahead = frames[:, None] - frames[None, :]  # of the query, compared with the key
    distance = ahead.abs()
    scaled = torch.log(distance.clamp(min=1).float() / exact) / math.log(_MAX_DISTANCE / exact)
    coarse = (exact + (scaled * (half - exact)).long()).clamp(max=half - 1)
    return (ahead < 0).long() * half + torch.where(distance < exact, distance, coarse)


class DistanceBias(nn.Module):
    """The learned bias of one layer."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(_NUM_BUCKETS, heads)

    def forward(self, num_frames: int) -> Tensor:
        """(heads, F, F)."""
        table = self.relative_attention_bias
        return table(distance_buckets(num_frames, table.weight.device)).permute(2, 0, 1)


class TemporalAttention(Attention):
    """Attention of the frames (N, F, width) at one position of the picture. The bias is not scaled."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.time_rel_pos_bias = DistanceBias(heads)
        self.rotary_emb = RotaryEmbedding()
        nn.init.zeros_(self.to_out[0].weight)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is None, "frames attend to frames"
        query, key = self.rotary_emb(self._split(self.to_q(tokens))), self.rotary_emb(self._split(self.to_k(tokens)))
        bias = self.time_rel_pos_bias(tokens.shape[1]).to(query.dtype)[None]
        value = self._split(self.to_v(tokens))
        return self._merged(F.scaled_dot_product_attention(query, key, value, attn_mask=bias))
