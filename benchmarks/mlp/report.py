"""The measurement as JSON, and whether it meets the targets."""

from __future__ import annotations

from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.mlp.measurement import Result
from benchmarks.mlp.trainers import ONE_PROCESS, OURS

# width -> (key, upper limit): ratios to one process with one thread
LIMITS = {256: ("ratio_fused", 1.10), 2048: ("ratio_inputs_first", 0.90)}
PEER_TOLERANCE = 1e-3  # difference of weights; other libraries add in other orders


def as_report(results: list[Result], absent: list[str]) -> dict[str, Any]:
    """`sizes`, one entry per width; `not_installed`; `weights_equal`, without which the times mean nothing."""
    sizes = [_size(result) for result in results]
    return {
        "machine": describe_machine(),
        "sizes": sizes,
        "not_installed": absent,
        "weights_equal": all(size["weights_equal"] for size in sizes),
    }


def _size(result: Result) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "width": result.width,
        **{f"{name}_ms": round(result.median_ms(name), 4) for name in result.times_ms},
        **{_ratio_key(name): round(result.ratio(name), 4) for name in result.times_ms if name != ONE_PROCESS},
        "largest_weight_difference": result.largest_difference,
        "weights_equal": weights_equal(result.largest_difference),
    }
    if result.width in LIMITS:
        key, limit = LIMITS[result.width]
        entry["target"] = {"key": key, "at_most": limit, "measured": entry[key], "met": entry[key] <= limit}
    return entry


def _ratio_key(name: str) -> str:
    return f"ratio{name.removeprefix('ours')}" if name in OURS else f"ratio_{name}"


def weights_equal(differences: dict[str, float]) -> bool:
    """True if Mora's weights are bit-identical and those of others nearly equal."""
    return all(difference <= (0.0 if name in OURS else PEER_TOLERANCE) for name, difference in differences.items())
