"""The sizes of a MUSIQ model, told by the shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from mora_env_vbench.weights.loading import Shapes, num_blocks

_HEAD_WIDTH = 64  # of the published model


@dataclass(frozen=True)
class MusiqSizes:
    """Channels of the stem's first convolution and of its block, both multiples of 32, and sizes of the transformer.

    `width` is that of a token, `mlp` that inside an MLP.
    """

    stem: int
    block: int
    width: int
    mlp: int
    num_heads: int
    num_blocks: int

    @classmethod
    def of(cls, shapes: Shapes) -> MusiqSizes:
        """Raises KeyError, IndexError or ValueError if the tensors are not those of MUSIQ."""
        prefix = "transformer_encoder.transformer.encoderblock_"
        width = shapes["embedding.weight"][0]
        mlp = shapes[f"{prefix}0.mlp.fc1.weight"][0]
        stem, block = shapes["conv_root.weight"][0], shapes["block1.conv3.weight"][0]
        return cls(stem, block, width, mlp, width // _HEAD_WIDTH, num_blocks(shapes, prefix))
