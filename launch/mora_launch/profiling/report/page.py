"""`summary.html`: one page that needs nothing else, with the picture of each step, and what to change first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mora_launch.profiling.lane import CATEGORIES, UNTRACED, Lane
from mora_launch.profiling.message import Message
from mora_launch.profiling.report.lane_picture import COLOURS, TEMPLATES, lane_picture
from mora_launch.profiling.report.summary import MOVE_KINDS
from mora_launch.profiling.step_window import StepWindow

_MAX_NUM_PICTURES = 8
_NUM_PATH_ROWS = 8
_LEGEND = {
    "compute": "compute (forward)", "backward": "compute (backward)", "copy": "copy", "protocol": "protocol",
    "io": "files", "wait": "wait, nothing to do in the step",
}  # fmt: skip


def summary_page(
    name: str,
    summary: Mapping[str, Any],
    lanes: Sequence[Lane],
    messages: Sequence[Message],
    windows: Sequence[StepWindow],
) -> str:
    """The page of one profile.

    Args:
        name: of the configuration.
        summary: as `summarise` made it.
        windows: every step; those with the most to tell are drawn.
    """
    return TEMPLATES.get_template("summary.html").render(
        name=name,
        summary=summary,
        pictures=[(window, lane_picture(lanes, messages, window)) for window in _drawn(windows)],
        gpu=_gpu(summary["gpu"]),
        colours=COLOURS,
        legend=_LEGEND,
        columns=(*CATEGORIES, UNTRACED),
        move_kinds=MOVE_KINDS,
        num_path_rows=_NUM_PATH_ROWS,
    )


def _drawn(windows: Sequence[StepWindow]) -> list[StepWindow]:
    """The step of median length first, then the others in order."""
    if not windows:
        return []
    counted = [window for window in windows if not window.left_out] or list(windows)
    first = sorted(counted, key=lambda window: window.wall_s)[len(counted) // 2]
    return [first, *[window for window in windows if window is not first][: _MAX_NUM_PICTURES - 1]]


def _gpu(gpu: str | Mapping[str, Mapping[str, float | None]]) -> str:
    if isinstance(gpu, str):
        return gpu
    return ", ".join(
        f"{role} {'-' if use['busy'] is None else format(use['busy'], '.0%')}" for role, use in gpu.items()
    )
