"""MUSIQ's transformer over the patches of all sizes of a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mora_env_vbench.musiq.patches import GRID, LONGER_SIDES, Patches


class Attention(nn.Module):
    """Attention of all tokens to all tokens."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._heads(project(x)) for project in (self.query, self.key, self.value))
        heads = functional.scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return attended

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self._num_heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, num_hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, num_hidden)
        self.fc2 = nn.Linear(num_hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    """Attention and an MLP, each after a norm and with a shortcut."""

    def __init__(self, width: int, num_hidden: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, num_hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Positions(nn.Module):
    """A row for each position in the grid of patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.position_emb = nn.Parameter(torch.zeros(1, GRID * GRID, width))

    def forward(self, positions: Tensor) -> Tensor:
        return self.position_emb[0, positions]


class Scales(nn.Module):
    """A row for each size of the picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_emb = nn.Parameter(torch.zeros(len(LONGER_SIDES) + 1, width))

    def forward(self, scales: Tensor) -> Tensor:
        return self.scale_emb[scales]


class TransformerEncoder(nn.Module):
    """Tokens (N, tokens, C) of patches to the token of the whole picture (N, C)."""

    def __init__(self, width: int, num_hidden: int, num_heads: int, num_blocks: int) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.posembed_input = Positions(width)
        self.scaleembed_input = Scales(width)
        blocks = {f"encoderblock_{number}": Block(width, num_hidden, num_heads) for number in range(num_blocks)}
        self.transformer = nn.ModuleDict(blocks)
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, tokens: Tensor, patches: Patches) -> Tensor:
        x = tokens + self.posembed_input(patches.positions) + self.scaleembed_input(patches.scales)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        for block in self.transformer.values():
            x = block(x)
        whole: Tensor = self.encoder_norm(x)[:, 0]
        return whole
