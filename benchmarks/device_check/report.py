"""What the check prints: a line for each part, the rates next to the assumed ones, and the memory next to the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mora_launch.planning.gpu_rates import ASSUMED, rates_of

from benchmarks.device_check.outcome import Outcome
from benchmarks.device_check.plan import Part

_GIB = 1 << 30


def part_line(part: Part, outcome: Outcome) -> str:
    """The line of a part that has ended."""
    reason = f": {outcome.reason}" if outcome.reason else ""
    return f"{outcome.status:8}{part.name:17}{outcome.seconds:7.1f} s  {part.what}{reason}"


def add_assumed_rates(outcome: Outcome) -> None:
    """Add the rates that the plan assumes for this device to the figures of the part `rates`."""
    measured = outcome.figures.get("rates")
    if measured is not None:
        assumed = rates_of(outcome.figures["device"]) or ASSUMED
        outcome.figures["assumed_rates"] = {
            "gpu": assumed.name, **{name: getattr(assumed, name) for name in measured}
        }  # fmt: skip


def rate_lines(figures: Mapping[str, Any]) -> list[str]:
    """A table of rates, measured and assumed."""
    if "assumed_rates" not in figures:
        return []
    assumed = figures["assumed_rates"]
    head = f"{'rate':22}{'measured':>12}{'assumed (' + assumed['gpu'] + ')':>18}"
    return [head, *(_rate_line(name, value, assumed[name]) for name, value in figures["rates"].items())]


def _rate_line(name: str, measured: float, assumed: float) -> str:
    if name.endswith("_s"):
        return f"{name:22}{measured * 1e6:12.1f}{assumed * 1e6:18.1f}  us"
    return f"{name:22}{measured / 1e12:12.2f}{assumed / 1e12:18.2f}  T{'B' if name == 'memory' else 'FLOP'}/s"


def memory_line(part: str, figures: Mapping[str, Any]) -> str | None:
    """The peak of a part next to the plan; None if one of them is unknown."""
    if "memory_share_of_plan" not in figures:
        return None
    taken, planned = (max(figures[name].values()) / _GIB for name in ("memory", "planned_memory"))
    return f"{part}: {taken:.3f} GiB besides weights and gradients, planned {planned:.3f} GiB"
