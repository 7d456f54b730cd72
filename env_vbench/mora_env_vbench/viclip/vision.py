"""ViCLIP's video encoder. Parameters have the published names without `vision_encoder.`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mora_env_vbench.clip.residual_block import FullNorm, Transformer
from mora_env_vbench.clip.sizes import VisionSizes


class ViclipVision(nn.Module):
    """Clips (N, num_frames, 3, side, side), normalised, to features (N, embed) of any length.

    All patches of all frames attend to each other; one class token stands for the clip.
    """

    def __init__(self, sizes: VisionSizes, num_frames: int) -> None:
        super().__init__()
        self.sizes, self.num_frames = sizes, num_frames
        width, num_patches = sizes.width, (sizes.image // sizes.patch) ** 2
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(num_patches + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.empty(1, num_frames, width))
        self.proj = nn.Parameter(torch.empty(width, sizes.embed))
        kernel = (1, sizes.patch, sizes.patch)
        self.conv1 = nn.Conv3d(3, width, kernel, stride=kernel, bias=False)
        self.ln_pre = FullNorm(width)
        self.transformer = Transformer(width, sizes.num_layers, sizes.num_heads)
        self.ln_post = FullNorm(width)

    def forward(self, clips: Tensor) -> Tensor:
        start = (self.class_embedding + self.positional_embedding[0]).expand(len(clips), 1, -1)
        x = torch.cat([start, self._patches(clips)], dim=1)
        x = self.transformer(self.ln_pre(x))
        features: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return features

    def _patches(self, clips: Tensor) -> Tensor:
        """(N, positions * num_frames, width): the tokens of a position in all frames follow each other."""
        weight = self.conv1.weight[:, :, 0]
        patches = functional.conv2d(clips.flatten(0, 1), weight, stride=self.sizes.patch).flatten(2)
        by_frame = patches.unflatten(0, clips.shape[:2]).movedim(2, -1)
        placed = by_frame + self.positional_embedding[1:] + self.temporal_positional_embedding[:, :, None]
        return placed.transpose(1, 2).flatten(1, 2)
