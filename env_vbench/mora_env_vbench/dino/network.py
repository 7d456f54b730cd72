"""DINO's vision transformer. Parameters have the published names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mora_env_vbench.dino.sizes import DinoSizes
from mora_env_vbench.weights.loading import Shapes

_EPSILON = 1e-6  # of the norms
# Upstream resizes the positions by a factor, to whose sides it adds this. With the size instead, features move by 4e-3.
_FACTOR_MARGIN = 0.1


class Dino(nn.Module):
    """Pictures (N, 3, H, W), normalised, to the features (N, width) of the class token."""

    def __init__(self, sizes: DinoSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.cls_token = nn.Parameter(torch.empty(1, 1, sizes.width))
        self.pos_embed = nn.Parameter(torch.empty(1, sizes.grid**2 + 1, sizes.width))
        self.patch_embed = PatchEmbedding(sizes.patch, sizes.width)
        self.blocks = nn.Sequential(*(Block(sizes.width, sizes.num_heads) for _ in range(sizes.num_blocks)))
        self.norm = nn.LayerNorm(sizes.width, eps=_EPSILON)

    @classmethod
    def of_shapes(cls, shapes: Shapes) -> Dino:
        return cls(DinoSizes.of(shapes))

    def forward(self, pictures: Tensor) -> Tensor:
        height, width = pictures.shape[-2:]
        patches = self.patch_embed(pictures)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        x = self.blocks(x + self.positions(height, width))
        found: Tensor = self.norm(x)[:, 0]
        return found

    def positions(self, height: int, width: int) -> Tensor:
        """Position embedding (1, tokens, width) of pictures of any size; bicubic where it is not the trained one."""
        sizes = self.sizes
        rows, columns = height // sizes.patch, width // sizes.patch
        if height == width and rows == columns == sizes.grid:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (sizes.grid, sizes.grid)).permute(0, 3, 1, 2)
        factors = ((rows + _FACTOR_MARGIN) / sizes.grid, (columns + _FACTOR_MARGIN) / sizes.grid)
        resized = functional.interpolate(grid, scale_factor=factors, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


class PatchEmbedding(nn.Module):
    """Each patch as a token; rows and columns that fill no patch are left out."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, pictures: Tensor) -> Tensor:
        found: Tensor = self.proj(pictures).flatten(2).transpose(1, 2)
        return found


class Attention(nn.Module):
    """Self-attention of all heads."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        joint = self.qkv(x).unflatten(-1, (3, self._num_heads, -1))
        query, key, value = joint.movedim(-3, 0).transpose(-2, -3).unbind()
        mixed = functional.scaled_dot_product_attention(query, key, value)
        found: Tensor = self.proj(mixed.transpose(-2, -3).flatten(-2))
        return found


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return found


class Block(nn.Module):
    """Attention and MLP, each added to its input."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        found: Tensor = x + self.mlp(self.norm2(x))
        return found
