"""The decay of the moving average equals upstream's."""

from __future__ import annotations

import pytest
import reference
from mora_training.ema import ema_decay

MISC = reference.read_meta("misc")


@pytest.mark.parametrize("step", MISC["args"]["steps"])
def test_ema_decay(step: int) -> None:
    assert ema_decay(step, MISC["args"]["ema_decay"]) == pytest.approx(MISC["items"]["ema_decay"][str(step)])
