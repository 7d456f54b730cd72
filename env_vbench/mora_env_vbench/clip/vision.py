"""CLIP's picture encoder. Parameters have the published names without `visual.`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mora_env_vbench.clip.residual_block import FullNorm, Transformer
from mora_env_vbench.clip.sizes import VisionSizes
from mora_env_vbench.weights.loading import Shapes


class ClipVision(nn.Module):
    """Pictures (N, 3, side, side), normalised, to features (N, embed) of any length."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.sizes = sizes
        width, num_patches = sizes.width, (sizes.image // sizes.patch) ** 2
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(num_patches + 1, width))
        self.proj = nn.Parameter(torch.empty(width, sizes.embed))
        self.conv1 = nn.Conv2d(3, width, sizes.patch, stride=sizes.patch, bias=False)
        self.ln_pre = FullNorm(width)
        self.transformer = Transformer(width, sizes.num_layers, sizes.num_heads)
        self.ln_post = FullNorm(width)

    @classmethod
    def of_shapes(cls, shapes: Shapes) -> ClipVision:
        return cls(VisionSizes.of(shapes))

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.conv1(pictures.to(self.proj.dtype)).flatten(2).transpose(1, 2)
        start = self.class_embedding.expand(len(patches), 1, -1)
        x = torch.cat([start, patches], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        found: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return found
