"""Multi-head attention on torch's `scaled_dot_product_attention`, for both the self- and the cross-attention."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mora_env_opensora.models.rotary import rotate


class Attention(nn.Module):
    """`to_q`, `to_k`, `to_v`, `to_out.0`; heads of equal width; no norm of queries and keys, no residual inside."""

    def __init__(self, heads: int, head_dim: int, context_dim: int, *, bias: bool) -> None:
        super().__init__()
        width = heads * head_dim
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context_dim, width, bias=bias)
        self.to_v = nn.Linear(context_dim, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])  # a list for the published key `to_out.0`

    def forward(
        self,
        x_BND: Tensor,
        context_BLD: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(B, N, D) -> (B, N, D).

        Args:
            context_BLD: source of keys and values; None: the tokens themselves.
            bias: additive, broadcastable to (B, heads, N, keys).
            rotary: tables from `rotary_tables` for queries and keys.
        """
        context = x_BND if context_BLD is None else context_BLD
        query, key, value = (self._split(x) for x in (self.to_q(x_BND), self.to_k(context), self.to_v(context)))
        if rotary is not None:
            query, key = rotate(query, *rotary), rotate(key, *rotary)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, K)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
