"""ViCLIP whole: encoders of videos and of texts. Parameters have the names of the published file."""

from __future__ import annotations

from math import isqrt

import torch
from torch import nn

from mora_env_vbench.clip.sizes import TextSizes, VisionSizes
from mora_env_vbench.clip.text import ClipText
from mora_env_vbench.viclip.vision import ViclipVision
from mora_env_vbench.weights.loading import Shapes, num_blocks

_VISION, _TEXT = "vision_encoder.", "text_encoder."


class Viclip(nn.Module):
    """Both encoders, and the temperature that they were trained with."""

    def __init__(self, vision: VisionSizes, text: TextSizes, num_frames: int) -> None:
        super().__init__()
        self.temp = nn.Parameter(torch.empty(()))
        self.vision_encoder = ViclipVision(vision, num_frames)
        self.text_encoder = ClipText(text)

    @classmethod
    def of_shapes(cls, shapes: Shapes) -> Viclip:
        vision, text = _below(_VISION, shapes), _below(_TEXT, shapes)
        num_frames = vision["temporal_positional_embedding"][1]
        return cls(_vision_sizes(vision), TextSizes.of(text), num_frames)


def _below(prefix: str, shapes: Shapes) -> Shapes:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _vision_sizes(shapes: Shapes) -> VisionSizes:
    """Raises KeyError, IndexError or ValueError if the tensors are not those of an encoder."""
    width, _, _, patch, _ = shapes["conv1.weight"]
    side = isqrt(shapes["positional_embedding"][0] - 1) * patch
    return VisionSizes(side, patch, width, num_blocks(shapes, "transformer.resblocks."), shapes["proj"][1])
