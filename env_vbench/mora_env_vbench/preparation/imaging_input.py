"""Frames (F, H, W, 3) of bytes as MUSIQ takes them: in [0, 1], large ones made smaller."""

from __future__ import annotations

from torch import Tensor

from mora_env_vbench.musiq.options import ImagingMode
from mora_env_vbench.preparation.frame_size import centre, resized
from mora_env_vbench.preparation.network_input import channels_first

LARGEST_SIDE = 512


def imaging_input(frames: Tensor, mode: ImagingMode = "longer") -> Tensor:
    """Float32 (F, 3, h, w) in [0, 1].

    Args:
        mode: which side decides. `longer`: frames with a longer side above 512 are resized to 512. `shorter`: the same
            with the shorter side. `shorter_centercrop`: also cut out the middle 512 x 512. `None`: no change.
    """
    pictures = channels_first(frames).float()
    height, width = pictures.shape[-2:]
    side = max(height, width) if mode == "longer" else min(height, width)
    if mode != "None" and side > LARGEST_SIDE:
        scale = LARGEST_SIDE / side
        pictures = resized(pictures, (int(scale * height), int(scale * width)), "bilinear")
        if mode == "shorter_centercrop":
            pictures = centre(pictures, LARGEST_SIDE)
    return pictures / 255.0
