"""Whether a video moves: the longest flow vectors of neighbouring sampled frames, against a threshold."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

DYNAMIC_SHARE = 0.05  # of the vectors of a frame
_THRESHOLD = 6.0  # pixels, of a video whose shorter side has _THRESHOLD_SIDE pixels
_THRESHOLD_SIDE = 256
_NEEDED_PAIRS, _NEEDED_FRAMES = 4, 16  # pairs that must move in a video of so many sampled frames


def flow_values(flows: Tensor, share: float = DYNAMIC_SHARE) -> Tensor:
    """(n,): the mean length of the longest vectors of each flow (n, 2, H, W)."""
    lengths = flows.square().sum(dim=1).sqrt().flatten(1)
    return lengths.topk(int(share * lengths.shape[1]), dim=1).values.mean(dim=1)


def movement_threshold(height: int, width: int) -> float:
    """The flow value above which a pair of frames moves; height and width without padding."""
    return _THRESHOLD * min(height, width) / _THRESHOLD_SIDE


def needed_pairs(num_sampled: int) -> int:
    """How many pairs must move; halves are rounded to even. 0 below three frames, where everything would move."""
    return round(_NEEDED_PAIRS * num_sampled / _NEEDED_FRAMES)


def moves(values: Iterable[float], threshold: float, needed: int) -> bool:
    """Whether enough pairs are above the threshold; with `needed` 0, one pair of any value is enough."""
    count = 0
    for value in values:
        count += value > threshold
        if count >= needed:
            return True
    return False
