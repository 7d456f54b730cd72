"""The sizes of a MUSIQ model, told by the shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from mora_env_vbench.weights.loading import Shapes, num_blocks

_HEAD_WIDTH = 64  # of the published model


@dataclass(frozen=True)
class MusiqSizes:
    """Sizes of the transformer, whose tokens are `width` wide, and channels of the stem.

    `stem` is of the first convolution, `block` of the block after it; both are multiples of 32.
    """

    width: int
    mlp: int
    num_heads: int
    num_blocks: int
    stem: int = 64
    block: int = 256

    @classmethod
    def of(cls, shapes: Shapes) -> MusiqSizes:
        """Raises KeyError, IndexError or ValueError if the tensors are not those of MUSIQ."""
        prefix = "transformer_encoder.transformer.encoderblock_"
        width = shapes["embedding.weight"][0]
        mlp = shapes[f"{prefix}0.mlp.fc1.weight"][0]
        stem, block = shapes["conv_root.weight"][0], shapes["block1.conv3.weight"][0]
        return cls(width, mlp, width // _HEAD_WIDTH, num_blocks(shapes, prefix), stem, block)


PUBLISHED = MusiqSizes(width=384, mlp=1152, num_heads=6, num_blocks=14)
