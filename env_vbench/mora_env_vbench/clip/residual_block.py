"""The transformer block of CLIP and ViCLIP. Parameters have the published names."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

HEAD_WIDTH = 64


class FullNorm(nn.LayerNorm):
    """Layer norm in float32, whatever the type of its input, as CLIP computes it in half precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class Attention(nn.Module):
    """Self-attention of all heads.

    Args:
        width: of a token.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        joint = nn.Linear(width, 3 * width)
        self.in_proj_weight, self.in_proj_bias = joint.weight, joint.bias
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, *, is_causal: bool) -> Tensor:
        joint = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = joint.unflatten(-1, (3, self._num_heads, -1)).movedim(-3, 0).transpose(-2, -3).unbind()
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=is_causal)
        found: Tensor = self.out_proj(mixed.transpose(-2, -3).flatten(-2))
        return found


class Mlp(nn.Module):
    """Two linear layers with QuickGELU, x * sigmoid(1.702 x), between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.c_fc(x)
        gate = (1.702 * hidden).sigmoid_()  # in place: large temporary tensors cost page faults
        found: Tensor = self.c_proj(hidden.mul_(gate))
        return found


class ResidualBlock(nn.Module):
    """Attention and MLP, each added to its input.

    Args:
        is_causal: a token sees only those before it.
    """

    def __init__(self, width: int, num_heads: int, *, is_causal: bool = False) -> None:
        super().__init__()
        self._is_causal = is_causal
        self.attn = Attention(width, num_heads)
        self.ln_1 = FullNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.ln_2 = FullNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), is_causal=self._is_causal)
        found: Tensor = x + self.mlp(self.ln_2(x))
        return found


class Transformer(nn.Module):
    """Blocks one after the other, under the name `resblocks`."""

    def __init__(self, width: int, num_layers: int, num_heads: int, *, is_causal: bool = False) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(
            *(ResidualBlock(width, num_heads, is_causal=is_causal) for _ in range(num_layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.resblocks(x)
        return found
