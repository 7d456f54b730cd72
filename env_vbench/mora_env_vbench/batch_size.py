"""How much of a video goes through a network in one pass."""

from __future__ import annotations

import torch

_CPU_PIXELS = 256 * 256  # larger passes of a CPU need more memory and save little time
_GPU_PIXELS = 16 * 512 * 512  # correlations of four pairs of 720x1280 then take about 5 GB


def num_at_once(wanted: int, num_pixels: int, device: torch.device) -> int:
    """How many frames, or pairs of frames, go through a network together: `wanted`, or as many as the device allows.

    Args:
        num_pixels: of one of them.
    """
    most = _CPU_PIXELS if device.type == "cpu" else _GPU_PIXELS
    return max(1, min(wanted, most // num_pixels))
