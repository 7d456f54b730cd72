"""Batches are as large as wanted, unless the device's share of pixels is smaller."""

from __future__ import annotations

import pytest
import torch
from mora_env_vbench.batch_size import num_at_once


@pytest.mark.parametrize(
    ("device", "height", "width", "expected"),
    [("cpu", 64, 64, 16), ("cpu", 128, 160, 3), ("cpu", 512, 512, 1), ("cpu", 1080, 1920, 1),
     ("cuda", 512, 512, 16), ("cuda", 720, 1280, 4), ("cuda", 2160, 3840, 1)],
)  # fmt: skip
def test_sixteen_frames_are_wanted(device: str, height: int, width: int, expected: int) -> None:
    assert num_at_once(16, height * width, torch.device(device)) == expected
