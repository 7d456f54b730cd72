"""The progress of training: what matters fits into 80 columns, and a pipe gets a line for each step."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from mora_trainer.progress import TrainingProgress
from mora_trainer.step import StepReport
from mora_trainer.terminal import Console

WIDTH = 80
_CONTROL = re.compile(r"\x1b\[[0-9?]*[A-Za-z]")


def report(step: int, **changes: Any) -> StepReport:
    values: dict[str, Any] = {
        "step": step, "loss": 0.23189, "losses": {"video": 0.23189}, "skipped": False, "clip": 1.0,
        "gradient_norm": 12.5, "gradient_norms": {}, "output_gradient_norms": {},
        "norms": {"image": 19.6, "refine": 11.1, "video": 13.8},
        "alphas": {"image": 9.8, "refine": 5.5, "video": 6.9},
        "breakdown_s": {"image forward": 0.1, "video backward": 0.15, "commit": 0.02},
    }  # fmt: skip
    return StepReport(**(values | changes))


def drawn(*, is_terminal: bool, **changes: Any) -> list[str]:
    """What is on the terminal after two of 240 steps."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=WIDTH, color_system=None, soft_wrap=True)
    progress = TrainingProgress(num_steps=240, first_step=0, visible=True, console=console)
    progress.start()
    for step in (119, 120):
        progress.step(report(step, **changes), 0.3125)
    progress.close()
    return [line.strip() for line in _CONTROL.sub("", file.getvalue()).splitlines()]


def test_step_total_time_left_and_loss_fit_into_80_columns() -> None:
    last = [line for line in drawn(is_terminal=True) if "training" in line][-1]
    assert len(last) <= WIDTH
    assert "121/240" in last
    assert "0:00:" in last or "-:--:--" in last
    assert last.endswith("left loss 0.2319  0.31 s")


def test_the_rest_of_a_step_is_below_the_bar() -> None:
    text = " ".join(" ".join(drawn(is_terminal=True)).split())
    assert "|z_refine| 11.1000" in text
    assert "alpha_video 6.9000" in text
    assert "(video backward 48%, image forward 32%, commit 6%)" in text


def test_a_pipe_gets_one_line_for_each_step() -> None:
    lines = drawn(is_terminal=False)
    assert [line.partition("  ")[0] for line in lines] == ["step 120/240", "step 121/240"]
    assert all("loss 0.2319" in line and "alpha_video 6.9000" in line for line in lines)


@pytest.mark.parametrize("changes", [{"skipped": True}, {"gradient_norm": float("nan")}])
def test_a_skipped_step_says_so_in_the_first_line(changes: dict[str, Any]) -> None:
    last = [line for line in drawn(is_terminal=True, **changes) if "training" in line][-1]
    assert "SKIPPED" in last
    assert len(last) <= WIDTH
