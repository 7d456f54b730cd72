"""How much of a video goes through a network in one pass."""

from __future__ import annotations

import torch

_CPU_PIXELS = 512 * 512


def num_at_once(wanted: int, num_pixels: int, device: torch.device) -> int:
    """How many frames, or pairs of frames, of so many pixels go through a network together.

    A GPU takes as many as are wanted. On a CPU a pass has at most the pixels of one frame of 512x512, if that is one
    frame or more: larger passes need more memory and save no time.
    """
    return wanted if device.type != "cpu" else max(1, min(wanted, _CPU_PIXELS // num_pixels))
