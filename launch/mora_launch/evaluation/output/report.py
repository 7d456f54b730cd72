"""The report: a page with overall values, curves over the steps of a run, and the worst and best videos."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from mora_data.contact_sheet import contact_sheet
from mora_runtime.errors import DatasetError
from mora_runtime.files.fresh_file import write_fresh

from mora_launch.evaluation.measuring.decoded_video import decode
from mora_launch.evaluation.measuring.result import Result
from mora_launch.evaluation.output.summary import Outcome, summary
from mora_launch.evaluation.suite.dimensions import KNOWN
from mora_launch.evaluation.suite.video_file import VideoFile
from mora_launch.web.page_templates import page_templates

REPORT_FILE = "report.html"
_TEMPLATES = page_templates("mora_launch.evaluation")
_NUM_SHOWN = 3  # of the worst and of the best videos of a dimension
_MAX_NUM_ROWS = 500  # of the table of videos; results.jsonl has all
_PLAYED = (".mp4", ".webm")  # by browsers
_PICTURES = (".gif", ".webp")
_MAX_SHEET_NBYTES = 256 << 20  # decoded, of a video that browsers do not play
_NUM_COLUMNS = 4  # of panels with curves


def write_report(folder: Path, outcome: Outcome) -> None:
    """Write the page. Raises: OSError: it cannot be written."""
    about = summary(outcome)
    page = _TEMPLATES.get_template("evaluation.html").render(
        about=about,
        facts=_facts(about),
        dimensions=[
            (KNOWN[name].title, name, each, outcome.overall(name)) for name, each in about["dimensions"].items()
        ],
        curves=group_curves(outcome),
        extremes=_extremes(folder, outcome),
        names=outcome.dimensions,
        rows=_rows(outcome),
        num_left_out=max(0, len(outcome.sources.videos) - _MAX_NUM_ROWS),
    )
    write_fresh(folder / REPORT_FILE, page)


def _facts(about: Mapping[str, Any]) -> dict[str, str]:
    shapes = [
        f"{each['num_videos']} of {each['width']}x{each['height']}, {each['num_frames']} frames at {each['fps']:g} fps"
        for each in about["shapes"][:4]
    ]
    prompts = {
        "vbench": "VBench's: each dimension counts the videos of its own prompts",
        "custom": "the user's: each dimension counts all videos",
    }[about["prompts"]]
    return {
        "videos": str(about["num_videos"]),
        "step": about["group"] and f"{about['group']}: overall values are those of this step's videos",
        "mode": f"{about['mode']}: each video is measured as a whole",
        "prompts": prompts,
        "sizes": "; ".join([*shapes, *(["and others"] if len(about["shapes"]) > len(shapes) else [])]),
        "refused": f"{len(about['refused'])} measurements",
        "failed": f"{len(about['failed'])} measurements",
        "made weights": ", ".join(about["made"]) and f"{', '.join(about['made'])}: values say nothing about quality",
    }


def _rows(outcome: Outcome) -> list[tuple[VideoFile, list[str]]]:
    return [
        (video, [_cell(outcome.results.get((video.name, name))) for name in outcome.dimensions])
        for video in outcome.sources.videos[:_MAX_NUM_ROWS]
    ]


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    return "refused" if result.score is None else f"{result.score:.4f}"


def _extremes(folder: Path, outcome: Outcome) -> list[dict[str, Any]]:
    """For each dimension its worst and its best videos, which are different ones."""
    videos = {video.name: video for video in outcome.sources.videos}
    shown: dict[str, dict[str, str]] = {}

    def cell(name: str, result: Result) -> dict[str, str]:
        if name not in shown:
            shown[name] = _preview(folder, videos[name])
        return {"name": name, "score": f"{result.value:.4f}", "prompt": videos[name].prompt or "", **shown[name]}

    found = []
    for dimension in outcome.dimensions:
        scored = sorted(
            ((name, each) for (name, kind), each in outcome.results.items() if kind == dimension and not each.refused),
            key=lambda pair: pair[1].value,
        )
        number = min(_NUM_SHOWN, len(scored) // 2)
        if number and scored[0][1].value < scored[-1][1].value:
            found.append(
                {
                    "title": KNOWN[dimension].title,
                    "worst": [cell(*pair) for pair in scored[:number]],
                    "best": [cell(*pair) for pair in reversed(scored[-number:])],
                }
            )
    return found


def _preview(folder: Path, video: VideoFile) -> dict[str, str]:
    """How the page shows a video: it plays the file, or shows a picture of some frames where a browser cannot."""
    suffix = video.path.suffix.lower()
    if suffix in _PLAYED or suffix in _PICTURES:
        source = quote(os.path.relpath(video.path.absolute(), folder.absolute()))
        return {"kind": "video" if suffix in _PLAYED else "picture", "source": source}
    try:
        frames = decode(video.path, _MAX_SHEET_NBYTES).frames
    except DatasetError as error:
        return {"kind": "text", "source": str(error)}

    sink = io.BytesIO()
    contact_sheet([("", np.stack(frames))], columns=3).save(sink, "WEBP", quality=80)
    return {"kind": "picture", "source": f"data:image/webp;base64,{base64.b64encode(sink.getvalue()).decode()}"}


def group_curves(outcome: Outcome) -> str:
    """Return an `<svg>` with a panel for each dimension over the steps of a run; "" with fewer than two steps."""
    groups = outcome.groups
    drawn = [name for name in outcome.dimensions if any(outcome.overall(name, group) for group in groups)]
    if len(groups) < 2 or not drawn:
        return ""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    num_rows = -(-len(drawn) // _NUM_COLUMNS)
    figure, panels = plt.subplots(
        num_rows, _NUM_COLUMNS, figsize=(11, 2.3 * num_rows), layout="constrained", squeeze=False
    )
    for panel, name in zip(panels.flat, drawn, strict=False):
        found = [(group, each) for group in groups if (each := outcome.overall(name, group)) is not None]
        panel.errorbar(
            [group for group, _ in found], [each.value for _, each in found],
            yerr=[each.half_width or 0.0 for _, each in found], marker="o", capsize=3,
        )  # fmt: skip
        panel.set_title(KNOWN[name].title, fontsize="medium")
        panel.tick_params(axis="x", labelsize="small", rotation=30 if len(found) > 3 else 0)
        panel.grid(alpha=0.3)
    for panel in list(panels.flat)[len(drawn) :]:
        panel.set_axis_off()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return "".join(text.getvalue().partition("<svg")[1:])
