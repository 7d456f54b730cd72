"""Means and intervals of a comparison of trainings, and their table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.learn.session import LOSS, Measured
from benchmarks.learn.variants import REFERENCE

Pairs = dict[str, list[tuple[Measured, Measured]]]  # (before, after) for every seed, by variant
_T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % interval of Student's t over the seeds."""
    mean = statistics.fmean(values)
    half = _T95.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    rounded = {"mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4)}
    return {**rounded, "values": [round(value, 6) for value in values]}


def figures(found: Pairs) -> dict[str, Any]:
    """By variant and measure: before, after, their difference, and the difference from `learned` after training."""
    return {name: {what: _compare(found, name, what) for what in pairs[0][0]} for name, pairs in found.items()}


def _compare(found: Pairs, name: str, what: str) -> dict[str, Any]:
    pairs = found[name]
    return {
        "before": interval([before[what] for before, _ in pairs]),
        "after": interval([after[what] for _, after in pairs]),
        "change": interval([after[what] - before[what] for before, after in pairs]),
        "against_learned": interval(
            [after[what] - reference[what] for (_, after), (_, reference) in zip(pairs, found[REFERENCE], strict=True)]
        ),
    }


def table(compared: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal, one per variant and measure."""
    lines = []
    for name, measures in compared.items():
        for what, figure in measures.items():
            before, after = (_shown(figure[when], what) for when in ("before", "after"))
            lines.append(f"{name:22s} {what:13s} {before} -> {after}")
    return lines


def _shown(figure: Mapping[str, float], what: str) -> str:
    digits = 4 if what == LOSS else 3
    return f"{figure['mean']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
