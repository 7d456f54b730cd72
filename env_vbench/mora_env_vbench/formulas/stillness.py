"""Whether a video is still: VBench measures temporal flickering only of videos that are."""

from __future__ import annotations

from collections.abc import Sequence

STILL_SHARE = 0.02  # of the vectors of a frame, whose mean length is the flow value of a pair
_THRESHOLD = 3.0  # pixels, of a video whose shorter side has _THRESHOLD_SIDE pixels
_THRESHOLD_SIDE = 256
_ALLOWED_PAIRS, _ALLOWED_FRAMES = 2, 16  # pairs that may move in a video of so many frames


def stillness_threshold(height: int, width: int) -> float:
    """The flow value above which a pair of frames moves; height and width without padding."""
    return _THRESHOLD * min(height, width) / _THRESHOLD_SIDE


def allowed_pairs(num_frames: int) -> int:
    """How many pairs may move; halves are rounded to even."""
    return round(_ALLOWED_PAIRS * num_frames / _ALLOWED_FRAMES)


def is_still(values: Sequence[float], ends: Sequence[float], threshold: float, allowed: int) -> bool:
    """Whether few pairs move and the last frame is close to the first.

    Args:
        values: of the pairs of neighbouring frames.
        ends: of the pair of first and last frame, in both directions.
    """
    num_moving = sum(value > threshold for value in values)
    return num_moving <= allowed and all(value <= 2 * allowed * threshold for value in ends)
