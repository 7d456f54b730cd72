"""The report as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.ipc.plan import KIB, MIB

_OURS = ("floor_us", "ours_us", "resident_us", "fresh_output_us", "add_us", "copy_us", "fresh_add_us")


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print all tables."""
    machine = report["machine"]
    console.print(f"{machine['num_cores']} cores of {machine['cpu']}, torch {machine['torch']}; medians")
    console.print(_sizes(report["sizes"]))
    if report["small"] is not None:
        console.print(_named("small messages", report["small"]))
    console.print(_named("by reference", report["by_reference"]))
    if "soak" in report:
        console.print(_soak(report["soak"]))
    console.print(_verdict(report["verdict"]))
    for key in ("not_installed", "left_out"):
        for name, reason in report[key].items():
            console.print(f"{name}: {reason}", markup=False)
    for failure in report["failed"]:
        console.print(f"failed: {failure}", style="red", markup=False)


def size_label(nbytes: int) -> str:
    """1 KiB, 64 MiB, ..."""
    return f"{nbytes // MIB} MiB" if nbytes >= MIB else f"{nbytes // KIB} KiB"


def time_label(us: float | None) -> str:
    """The time with a suitable unit."""
    if us is None:
        return "-"
    return f"{us / 1e3:.1f} ms" if us >= 1e4 else f"{us:.0f} us"


def _sizes(sizes: list[dict[str, Any]]) -> Table:
    table = Table("echo of y = x + 1", box=None, pad_edge=False)
    for size in sizes:
        table.add_column(size_label(size["bytes"]), justify="right")
    for key in _OURS:
        table.add_row(key.removesuffix("_us"), *(time_label(size[key]) for size in sizes))
    for key in ("ratio", "resident_ratio", "fresh_output_ratio"):
        table.add_row(key, *(f"{size[key]:.2f}" for size in sizes), style="bold")
    largest = sizes[-1]["peers_us"]
    names = {name for size in sizes for name in size["peers_us"]}
    for name in sorted(names, key=lambda name: largest.get(name, float("inf"))):
        table.add_row(name, *(time_label(size["peers_us"].get(name)) for size in sizes))
    return table


def _named(title: str, values: Mapping[str, Any]) -> Table:
    table = Table(title, "", box=None, pad_edge=False)
    for name, value in values.items():
        if not isinstance(value, list):
            table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    return table


def _soak(soak: Mapping[str, Any]) -> Table:
    tenths = soak["tenths"]
    table = Table("tenth", *tenths, box=None, pad_edge=False)
    for index in range(len(tenths["messages_per_s"])):
        table.add_row(str(index + 1), *(f"{values[index]:.0f}" for values in tenths.values()))
    return table


def _verdict(verdict: list[dict[str, Any]]) -> Table:
    table = Table("target", "measured", "", "limit", "met", box=None, pad_edge=False)
    for entry in verdict:
        measured = f"{entry['measured']:.4g}"
        met = "[green]yes[/]" if entry["met"] else "[red]no[/]"
        table.add_row(entry["target"], measured, entry["comparison"], f"{entry['limit']:.4g}", met)
    return table
