"""Draws loss, norms of z_i and modulation factors alpha_i over the steps of a run, as SVG for the report."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any


def read_steps(run: Path) -> list[dict[str, Any]]:
    """Read the complete lines of the run's `metrics.jsonl`, by step; empty before training."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def modulation_curves(steps: list[dict[str, Any]]) -> str:
    """Return an `<svg>` with three panels (loss, norm of every z_i, every alpha_i), or "" without steps to draw."""
    if not steps:
        return ""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained")
    numbers = [line["step"] + 1 for line in steps]
    panels[0].plot(numbers, [line["loss"] for line in steps], color="black")
    panels[0].set_title("loss")
    for panel, key, title in ((panels[1], "z_norm", "norm of z"), (panels[2], "alpha", "alpha")):
        for agent in steps[0][key]:
            first = steps[0][key][agent]
            panel.plot(numbers, [line[key][agent] - first for line in steps], label=f"{agent}: {first:.4f} +")
        panel.set_title(f"{title}, change since the first step")
        if steps[0][key]:
            panel.legend(fontsize="small")
    for panel in panels:
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]
