"""The summary as a person sees it at the end of `mora profile`: a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from mora_launch.profiling.lane import CATEGORIES, UNTRACED

_NUM_PATH_ENTRIES = 4
_UNEVEN = 0.1  # of the servers' time; from here on, the levers are named
_LEVERS = "give the busiest server more cores (num_threads) or a faster device, or turn its recompute off"


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Times by role, bubble, critical path, what to change."""
    mean = summary["mean"]
    if not mean:
        console.print("no step came to its end; the trace has what there was")
        return
    counted, all_ = summary["num_steps_counted"], summary["num_steps"]
    uneven = f"{100 * mean['imbalance_share']:.0f}"
    console.print(
        f"a step takes {mean['wall_s']:.3f} s (mean of {counted} of {all_} steps); "
        f"bubble {mean['bubble_share']:.0%}, {uneven} points of it because one server has more work"
    )
    if mean["imbalance_share"] > _UNEVEN:
        console.print(f"no schedule removes those {uneven} points: {_LEVERS}")
    console.print(_role_table(summary))
    path = [
        f"{entry['role']} {entry['name']} {entry['share']:.0%}" for entry in mean["critical_path"][:_NUM_PATH_ENTRIES]
    ]
    console.print(f"critical path: {', '.join(path)}", markup=False)
    kinds = summary["bytes"]["by_kind"]
    moved = ", ".join(f"{kind} {nbytes / 1024:,.0f} KiB" for kind, nbytes in kinds.items() if nbytes)
    console.print(f"tensors a step: {moved or 'none'}")
    gpu = summary["gpu"]
    console.print(f"GPU: {gpu}" if isinstance(gpu, str) else f"GPU busy: {_gpu(gpu)}")
    _print_advice(summary, console)


def _role_table(summary: Mapping[str, Any]) -> Table:
    table = Table("role", *CATEGORIES, UNTRACED, "cores", box=None, pad_edge=False)
    for role, spent in summary["mean"]["roles"].items():
        cores = summary["processor"].get(role)
        shares = [f"{spent['shares'][category]:.1%}" for category in (*CATEGORIES, UNTRACED)]
        table.add_row(role, *shares, "-" if cores is None else f"{cores:.2f}")
    return table


def _gpu(gpu: Mapping[str, Mapping[str, float | None]]) -> str:
    return ", ".join(f"{role} {use['busy']:.0%}" for role, use in gpu.items() if use["busy"] is not None) or "unknown"


def _print_advice(summary: Mapping[str, Any], console: Console) -> None:
    faster = {trial["change"]: trial for trial in summary["tried"] if trial["is_faster"]}
    if not summary["advice"]:
        tried = " that was not tried" if summary["tried"] else ""
        console.print(f"what to change first: nothing in the configuration{tried} would gain 1 % of a step")
        return
    console.print("what to change first:")
    for advice in summary["advice"]:
        trial = faster.get(advice["change"])
        gain = f"up to about {advice['gain_share']:.0%}"
        if trial is not None:
            gain = f"measured {1.0 - trial['after_s'] / trial['before_s']:.0%}"
        console.print(f"  {advice['change']}  {gain}: {advice['why']}", markup=False)
