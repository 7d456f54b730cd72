"""One transformer block: modulated self-attention, plain cross-attention, modulated feed-forward."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mora_env_opensora.models.attention import Attention
from mora_env_opensora.models.feed_forward import FeedForward
from mora_env_opensora.models.transformer_config import TransformerConfig


class BlockContext(NamedTuple):
    """The inputs that all blocks of one forward pass share."""

    text_BLD: Tensor  # projected caption
    six_B6D: Tensor  # modulation from the timestep
    rotary: tuple[Tensor, Tensor] | None
    video_bias: Tensor | None
    text_bias: Tensor | None


def modulate(x_BND: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LayerNorm without parameters, then (1 + scale) and shift, both (B, 1, D)."""
    return F.layer_norm(x_BND, x_BND.shape[-1:], eps=eps) * (1 + scale) + shift


class TransformerBlock(nn.Module):
    """The norms have no parameters, so the block's keys are its table, two attentions and the feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        heads, head_dim, width = config.num_attention_heads, config.attention_head_dim, config.width
        self.eps = config.norm_eps
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)
        self.attn1 = Attention(heads, head_dim, width, bias=config.attention_bias)
        self.attn2 = Attention(heads, head_dim, width, bias=config.attention_bias)
        self.ff = FeedForward(width)

    def forward(self, x_BND: Tensor, context: BlockContext) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + context.six_B6D).chunk(6, dim=1)
        attended = self.attn1(modulate(x_BND, shift1, scale1, self.eps), bias=context.video_bias, rotary=context.rotary)
        x = x_BND + gate1 * attended
        x = x + self.attn2(x, context.text_BLD, bias=context.text_bias)  # no norm, modulation or gate
        return x + gate2 * self.ff(modulate(x, shift2, scale2, self.eps))
