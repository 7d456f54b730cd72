"""Attention inside a frame and to the text, and the feed-forward layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention of tokens (N, L, width) to themselves, or to a context (N, M, context_width).

    Queries, keys and values have no bias, the projection out has one.
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        context_width = width if context_width is None else context_width
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        source = tokens if context is None else context
        query, key, value = (
            self._split(self.to_q(tokens)),
            self._split(self.to_k(source)),
            self._split(self.to_v(source)),
        )
        return self._merged(F.scaled_dot_product_attention(query, key, value))

    def _split(self, tokens: Tensor) -> Tensor:
        """(N, L, width) -> (N, heads, L, d)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _merged(self, heads: Tensor) -> Tensor:
        """Heads (N, heads, L, d), side by side, through the projection out."""
        return self.to_out[0](heads.transpose(1, 2).flatten(2))


class _GatedProjection(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, tokens: Tensor) -> Tensor:
        values, gate = self.proj(tokens).chunk(2, dim=-1)  # the gate is the second half
        return values * F.gelu(gate)


class FeedForward(nn.Module):
    """Width to four times the width with a gate, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # the checkpoint numbers the layers 0 and 2; 1 is upstream's dropout, which is off
        self.net = nn.ModuleList([_GatedProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net[2](self.net[0](tokens))
