"""CLIP whole: the picture encoder below `visual`, the text encoder's tensors at the top, as in the published files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mora_env_vbench.clip.residual_block import FullNorm
from mora_env_vbench.clip.sizes import TextSizes, VisionSizes
from mora_env_vbench.clip.text import ClipText
from mora_env_vbench.clip.vision import ClipVision
from mora_env_vbench.weights.loading import Shapes, load_network

VISION_PREFIX = "visual."
_IGNORED = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # of archives; shapes tell the same
_Network = TypeVar("_Network", bound=nn.Module)
ClipDtype = Literal["float32", "float16"]


class Clip(ClipText):
    """Both encoders and the scale of their cosine."""

    def __init__(self, vision: VisionSizes, text: TextSizes) -> None:
        super().__init__(text)
        self.visual = ClipVision(vision)
        self.logit_scale = nn.Parameter(torch.empty(()))

    @classmethod
    def of_shapes(cls, shapes: Shapes) -> Clip:
        pictures = {
            name.removeprefix(VISION_PREFIX): shape for name, shape in shapes.items() if name.startswith(VISION_PREFIX)
        }
        return cls(VisionSizes.of(pictures), TextSizes.of(shapes))

    def similarity(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Scaled cosines (texts, pictures) of features of both."""
        cosines = functional.normalize(texts, dim=-1) @ functional.normalize(pictures, dim=-1).T
        return self.logit_scale.exp() * cosines


def load_clip(path: Path, dtype: ClipDtype, device: torch.device) -> Clip:
    """The whole model of a published file.

    Raises:
        WeightsRefused: the file cannot be read, or is of another layout.
    """
    return in_dtype(load_network(path, Clip.of_shapes, ignored=_IGNORED), dtype).to(device)


def load_clip_vision(path: Path, dtype: ClipDtype, device: torch.device) -> ClipVision:
    """The picture encoder alone, of a published file of the whole model.

    Raises:
        WeightsRefused: the file cannot be read, or is of another layout.
    """
    return in_dtype(load_network(path, ClipVision.of_shapes, within=VISION_PREFIX, ignored=_IGNORED), dtype).to(device)


def in_dtype(network: _Network, dtype: ClipDtype) -> _Network:
    """The network in a type; in half precision its norms stay float32, as CLIP is published for GPUs."""
    if dtype == "float16":
        network.half()
        for module in network.modules():
            if isinstance(module, FullNorm):
                module.float()
    return network
