"""The table as a picture: time over size, all contestants in one plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.ipc.table import size_label

_OURS = {
    "floor_us": ("floor: one copy, one addition", "black", "--"),
    "ours_us": ("Mora", "tab:red", "-"),
    "resident_us": ("Mora, x already in a slot", "tab:orange", "-"),
}


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write the picture in the format of the path's ending (.svg, .png)."""
    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "mora"  # makes the same file from the same figures
    from matplotlib import pyplot as plt

    sizes = report["sizes"]
    figure, axes = plt.subplots(figsize=(9.0, 6.0), layout="constrained")
    names = sorted({name for size in sizes for name in size["peers_us"]})
    colours = mpl.colormaps["tab20"]
    for position, name in enumerate(names):
        points = [(size["bytes"], size["peers_us"][name]) for size in sizes if name in size["peers_us"]]
        axes.plot(*zip(*points, strict=True), color=colours(position % 20), label=name, linewidth=1, marker=".")
    for key, (label, colour, style) in _OURS.items():
        points = [(size["bytes"], size[key]) for size in sizes]
        axes.plot(*zip(*points, strict=True), color=colour, label=label, linestyle=style, linewidth=2.5, marker="o")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([size["bytes"] for size in sizes], [size_label(size["bytes"]) for size in sizes])
    axes.set_xlabel("size of x and of y")
    axes.set_ylabel("microseconds per echo, median")
    machine = report["machine"]
    axes.set_title(f"Echo of y = x + 1 between two processes, {machine['num_cores']} cores of {machine['cpu']}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
