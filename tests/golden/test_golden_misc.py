"""The rule of training clip lengths and the decay of the moving average equal upstream's."""

from __future__ import annotations

import pytest
import reference
from mora_env_opensora.training_clip import frames_kept
from mora_training.ema import ema_decay

MISC = reference.read_meta("misc")


@pytest.mark.parametrize("available", MISC["args"]["frames"])
def test_frames_kept(available: int) -> None:
    expected = MISC["items"]["frames_kept"][str(available)]
    assert frames_kept(available) == (None if expected == -1 else expected)


@pytest.mark.parametrize("step", MISC["args"]["steps"])
def test_ema_decay(step: int) -> None:
    assert ema_decay(step, MISC["args"]["ema_decay"]) == pytest.approx(MISC["items"]["ema_decay"][str(step)])
