"""The device of a server: made the current one before anything loads."""

from __future__ import annotations

import torch


def make_current(device: torch.device) -> None:
    """Make a GPU the current one of this process, for libraries that create tensors without naming a device."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
