"""MUSIQ: the quality of a picture, 0..100. Parameters have the names of the published file."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mora_env_vbench.musiq.patches import PATCH, Patches, multiscale_patches
from mora_env_vbench.musiq.sizes import PUBLISHED, MusiqSizes
from mora_env_vbench.musiq.stem import Bottleneck, StandardisedConv2d, same_padded
from mora_env_vbench.musiq.transformer import TransformerEncoder
from mora_env_vbench.weights.loading import Shapes

_CELLS = (PATCH // 4) ** 2  # of a patch after the stem, which halves its sides twice


class Musiq(nn.Module):
    """Scores (N,) of pictures (N, 3, H, W) of one size, values 0..1."""

    def __init__(self, sizes: MusiqSizes = PUBLISHED) -> None:
        super().__init__()
        self.conv_root = StandardisedConv2d(3, sizes.stem, 7, stride=2)
        self.gn_root = nn.GroupNorm(32, sizes.stem, eps=1e-6)
        self.block1 = Bottleneck(sizes.stem, sizes.block)
        self.embedding = nn.Linear(sizes.block * _CELLS, sizes.width)
        self.transformer_encoder = TransformerEncoder(sizes.width, sizes.mlp, sizes.num_heads, sizes.num_blocks)
        self.head = nn.Linear(sizes.width, 1)

    @classmethod
    def of_shapes(cls, shapes: Shapes) -> Musiq:
        return cls(MusiqSizes.of(shapes))

    def forward(self, pictures: Tensor) -> Tensor:
        patches = multiscale_patches(pictures * 2 - 1).without_padding()
        scores: Tensor = self.head(self.transformer_encoder(self._tokens(patches), patches))
        return scores[:, 0]

    def _tokens(self, patches: Patches) -> Tensor:
        """(N, tokens, C): each patch through the convolutions and the embedding."""
        x = self.conv_root(patches.pixels.reshape(-1, 3, PATCH, PATCH))
        x = functional.relu(self.gn_root(x))
        x = self.block1(functional.max_pool2d(same_padded(x, 3, 2), 3, 2))
        features = x.permute(0, 2, 3, 1).reshape(*patches.pixels.shape[:2], -1)
        tokens: Tensor = self.embedding(features)
        return tokens
