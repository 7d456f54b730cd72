"""`summary.html`: one page that needs nothing else, with the picture of each step, and what to change first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from mora_launch.profiling.lane import CATEGORIES, UNTRACED, Lane
from mora_launch.profiling.message import Message
from mora_launch.profiling.report.lane_picture import COLOURS, lane_picture
from mora_launch.profiling.report.summary import MOVE_KINDS
from mora_launch.profiling.step_window import StepWindow

_MAX_NUM_PICTURES = 8
_NUM_PATH_ROWS = 8
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1c2730; background: #fff; margin: 24px auto; max-width: 1140px; }
h1 { font-size: 21px; margin: 0 0 2px; } h2 { font-size: 16px; margin: 22px 0 6px; }
p { margin: 4px 0; } .note { color: #56646f; } .big { font-size: 26px; font-weight: 600; }
.figures { display: flex; gap: 36px; margin: 12px 0; } .figures div span { display: block; color: #56646f; }
table { border-collapse: collapse; } td, th { padding: 3px 12px 3px 0; text-align: left; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid #ccd4da; } td.n, th.n { text-align: right; }
.key { display: inline-block; width: 14px; height: 14px; vertical-align: -2px; margin: 0 5px 0 14px; }
.bar { display: flex; width: 420px; height: 15px; } svg { max-width: 100%; height: auto; display: block; }
.tick { stroke: #dfe5ea; } .axis { font-size: 11px; fill: #56646f; text-anchor: middle; }
.role { font-size: 13px; font-weight: 600; }
.block { font-size: 11.5px; fill: #fff; text-anchor: middle; pointer-events: none; }
.bubble { font-size: 12px; fill: #a3241b; font-weight: 600; text-anchor: middle; pointer-events: none; }
.plate { fill: #fff; pointer-events: none; } .path { stroke: #111; stroke-width: 2.4; stroke-linecap: round; }
code { background: #f2f4f6; padding: 1px 5px; border-radius: 3px; } summary { cursor: pointer; margin: 6px 0; }
"""
_HATCH = (
    '<svg width="0" height="0" style="position:absolute"><defs><pattern id="hatch" width="8" height="8" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="8" height="8" fill="#fbe3e1"/>'
    f'<rect width="3" height="8" fill="{COLOURS["bubble"]}"/></pattern></defs></svg>'
)


def summary_page(
    name: str,
    summary: Mapping[str, Any],
    lanes: Sequence[Lane],
    messages: Sequence[Message],
    windows: Sequence[StepWindow],
) -> str:
    """The page of one profile.

    Args:
        name: of the configuration.
        summary: as `summarise` made it.
        windows: every step; those with the most to tell are drawn.
    """
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>mora profile: {escape(name)}</title>',
        f"<style>{_STYLE}</style></head><body>{_HATCH}",
        f"<h1>Where a step's time goes: {escape(name)}</h1>",
        *_figures(summary),
        *_pictures(lanes, messages, windows),
        *_advice(summary),
        *_roles(summary),
        *_path(summary),
        *_bytes(summary),
        *_notes(summary),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _figures(summary: Mapping[str, Any]) -> Iterator[str]:
    mean = summary["mean"]
    if not mean:
        yield "<p>No step came to its end: the trace has what there was.</p>"
        return
    counted, all_ = summary["num_steps_counted"], summary["num_steps"]
    yield f'<p class="note">Means over {counted} of {all_} steps; the others are left out for the reason below.</p>'
    yield '<div class="figures">'
    yield f'<div><span>a step takes</span><b class="big">{mean["wall_s"]:.3f} s</b></div>'
    uneven = f"{100 * mean['imbalance_share']:.0f} points of it because one server has more work than the other"
    yield (
        f'<div><span>bubble: servers that have work in the step idle</span><b class="big" '
        f'style="color:#a3241b">{mean["bubble_share"]:.0%}</b> of their time'
        f"<span>{uneven}</span></div>"
    )
    gpu = summary["gpu"]
    shown = gpu if isinstance(gpu, str) else ", ".join(f"{role} {_share(use['busy'])}" for role, use in gpu.items())
    yield f'<div><span>GPU</span><b class="big">{escape(shown)}</b></div></div>'


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _pictures(lanes: Sequence[Lane], messages: Sequence[Message], windows: Sequence[StepWindow]) -> Iterator[str]:
    if not windows:
        return
    yield "<h2>What each process does, moment by moment</h2>"
    yield (
        "<p>Time runs to the right, one lane a process. <b>Hatched red is the bubble</b>: this server has work in the "
        "step, but what it needs next is not there yet. The black line is the critical path: what the end of the step "
        "waited for; only what lies on it makes a step shorter. Point at anything to read what it is.</p>"
    )
    yield f"<p>{''.join(_legend())}</p>"
    counted = [window for window in windows if not window.left_out] or list(windows)
    first = sorted(counted, key=lambda window: window.wall_s)[len(counted) // 2]
    others = [window for window in windows if window is not first][: _MAX_NUM_PICTURES - 1]
    for window in [first, *others]:
        why = f" (not counted: {window.left_out})" if window.left_out else ""
        where = f"step {window.number + 1}, replica {window.replica}, {window.wall_s:.3f} s{why}"
        yield f"<details{' open' if window is first else ''}><summary>{where}</summary>"
        yield lane_picture(lanes, messages, window)
        yield "</details>"


def _legend() -> Iterator[str]:
    shown = {
        "compute": "compute (forward)", "backward": "compute (backward)", "copy": "copy", "protocol": "protocol",
        "io": "files", "wait": "wait, nothing to do in the step",
    }  # fmt: skip
    for colour, text in shown.items():
        yield f'<span class="key" style="background:{COLOURS[colour]}"></span>{text}'
    yield (
        '<span class="key" style="background:repeating-linear-gradient(45deg,#e2574c 0 3px,#fbe3e1 3px 8px)"></span>'
        "bubble"
    )


def _advice(summary: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>What to change first</h2>"
    if not summary["advice"]:
        yield "<p>Nothing in the configuration would gain 1 % of a step, as far as these measurements tell.</p>"
        return
    yield '<table><tr><th>change</th><th class="n">gain of a step, at most about</th><th>why</th></tr>'
    for advice in summary["advice"]:
        gain = f"{advice['gain_s'] * 1e3:.0f} ms = {advice['gain_share']:.0%}"
        yield (
            f'<tr><td><code>{escape(advice["change"])}</code></td><td class="n">{gain}</td>'
            f"<td>{escape(advice['why'])}</td></tr>"
        )
    yield "</table>"


def _roles(summary: Mapping[str, Any]) -> Iterator[str]:
    roles = summary["mean"].get("roles", {})
    if not roles:
        return
    columns = (*CATEGORIES, UNTRACED)
    yield "<h2>Time by role</h2>"
    heads = "".join(f'<th class="n">{name}</th>' for name in columns)
    yield f"<table><tr><th>role</th><th></th>{heads}<th>cores</th></tr>"
    for role, spent in roles.items():
        shares = spent["shares"]
        bar = "".join(
            f'<span style="width:{shares[name]:.2%};background:{COLOURS.get(name, "#fff")}"></span>' for name in columns
        )
        cells = "".join(f'<td class="n">{spent[f"{name}_s"] * 1e3:.1f} ms</td>' for name in columns)
        cores = summary["processor"].get(role)
        used = "-" if cores is None else f"{cores:.2f}"
        yield f'<tr><td>{escape(role)}</td><td><div class="bar">{bar}</div></td>{cells}<td class="n">{used}</td></tr>'
    yield "</table>"


def _path(summary: Mapping[str, Any]) -> Iterator[str]:
    path = summary["mean"].get("critical_path", [])[:_NUM_PATH_ROWS]
    if not path:
        return
    yield "<h2>The critical path, longest first</h2>"
    yield '<table><tr><th>role</th><th>what</th><th>kind</th><th class="n">time</th><th class="n">of a step</th></tr>'
    for entry in path:
        yield (
            f"<tr><td>{escape(entry['role'])}</td><td>{escape(entry['name'])}</td><td>{entry['category']}</td>"
            f'<td class="n">{entry["spent_s"] * 1e3:.1f} ms</td><td class="n">{entry["share"]:.1%}</td></tr>'
        )
    yield "</table>"


def _bytes(summary: Mapping[str, Any]) -> Iterator[str]:
    edges = summary["bytes"]["by_edge"]
    if not edges:
        return
    yield "<h2>Tensors that a step moves, in KiB</h2>"
    yield (
        '<p class="note">inline: in the message. copied: once, into shared memory. resident: made there, nothing to '
        "copy. reference: handed on, its bytes are not touched. spilled: the arena was full.</p>"
    )
    yield f"<table><tr><th>from</th><th>to</th>{''.join(f'<th class=n>{kind}</th>' for kind in MOVE_KINDS)}</tr>"
    for edge in edges:
        cells = "".join(f'<td class="n">{edge[kind] / 1024:,.1f}</td>' for kind in MOVE_KINDS)
        yield f"<tr><td>{escape(edge['from'])}</td><td>{escape(edge['to'])}</td>{cells}</tr>"
    yield "</table>"


def _notes(summary: Mapping[str, Any]) -> Iterator[str]:
    for role, state in summary["roles"].items():
        if not state["is_complete"]:
            yield f'<p class="note">{escape(role)} ended before its trace did; its last moments are missing.</p>'
        if state["num_dropped"]:
            yield f'<p class="note">{escape(role)}: {state["num_dropped"]} events beyond the limit were dropped.</p>'
