"""The sizes of a CLIP model, told by the shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from mora_env_vbench.clip.residual_block import HEAD_WIDTH
from mora_env_vbench.weights.loading import Shapes, num_blocks


@dataclass(frozen=True)
class VisionSizes:
    """Of the picture encoder; `image` and `patch` are sides in pixels, `embed` the length of a feature."""

    image: int
    patch: int
    width: int
    num_layers: int
    embed: int
    head_width: int = HEAD_WIDTH

    @property
    def num_heads(self) -> int:
        return self.width // self.head_width

    @classmethod
    def of(cls, shapes: Shapes) -> VisionSizes:
        """Raises KeyError, IndexError or ValueError if the tensors are not those of an encoder."""
        width, _, patch, _ = shapes["conv1.weight"]
        num_tokens, _ = shapes["positional_embedding"]
        layers = num_blocks(shapes, "transformer.resblocks.")
        return cls(isqrt(num_tokens - 1) * patch, patch, width, layers, shapes["proj"][1])


@dataclass(frozen=True)
class TextSizes:
    """Of the text encoder; `length` is the number of tokens of a text."""

    length: int
    num_words: int
    width: int
    num_layers: int
    embed: int
    head_width: int = HEAD_WIDTH

    @property
    def num_heads(self) -> int:
        return self.width // self.head_width

    @classmethod
    def of(cls, shapes: Shapes) -> TextSizes:
        """Raises KeyError, IndexError or ValueError if the tensors are not those of an encoder."""
        num_words, width = shapes["token_embedding.weight"]
        layers = num_blocks(shapes, "transformer.resblocks.")
        return cls(shapes["positional_embedding"][0], num_words, width, layers, shapes["text_projection"][1])
