"""Which frames a mask gives, by its name. It needs no torch, because options are checked with it."""

from __future__ import annotations

import re

from mora_env_svd.errors import InputError

_COUNTED = re.compile(r"(onelast|first)(\d{1,6})")


def given_counts(kind: str, num_frames: int) -> tuple[int, int]:
    """How many frames are given at the start and at the end of the clip.

    Args:
        kind: `firstK`: K frames at the start. `onelastK`: K at the start and K at the end. `all...`: none.

    Raises:
        InputError: another kind, or more given frames than the clip has.
    """
    if kind.startswith("all"):
        return 0, 0
    found = _COUNTED.fullmatch(kind)
    if found is None:
        raise InputError(f"mask: expected `firstK`, `onelastK` or `all` with a number K, got {kind!r}")
    count = int(found[2])
    counts = (count, count if found[1] == "onelast" else 0)
    if sum(counts) > num_frames:
        raise InputError(f"mask {kind}: gives {sum(counts)} frames, expected at most the clip's {num_frames}")
    return counts


def given_frames(kind: str, num_frames: int) -> tuple[int, ...]:
    """Indices of the given frames."""
    start, end = given_counts(kind, num_frames)
    return (*range(start), *range(num_frames - end, num_frames))
