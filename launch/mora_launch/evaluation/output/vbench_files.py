"""VBench's own files of results: one JSON file of all dimensions, and the zip that its leaderboard takes."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from mora_launch.evaluation.measuring.result import Result
from mora_launch.evaluation.output.summary import Outcome
from mora_launch.evaluation.suite.dimensions import DIMENSIONS

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same results give the same zip


def vbench_results(outcome: Outcome) -> dict[str, list[Any]]:
    """Return {dimension: [overall value, [{video_path, video_results}, ...]]} of the measured dimensions.

    A video's value has the scale of VBench: imaging quality 0 to 100, dynamic degree true or false.
    """
    paths = {video.name: str(video.path) for video in outcome.sources.videos}
    found: dict[str, list[Any]] = {}
    for name in filter(DIMENSIONS.__contains__, outcome.dimensions):
        overall = outcome.overall(name)
        if overall is not None:
            videos = [
                {"video_path": paths[file], "video_results": _video_value(result)}
                for file, result in outcome.named(name)
                if result.score is not None
            ]
            found[name] = [overall.value, videos]
    return found


def leaderboard_zip(outcome: Outcome) -> bytes:
    """Return a zip with one file of results for each dimension."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in vbench_results(outcome).items():
            entry = zipfile.ZipInfo(f"{outcome.name}_{name}_eval_results.json", _LONG_AGO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, json.dumps({name: content}, indent=1))
    return sink.getvalue()


def _video_value(result: Result) -> float | bool:
    about = DIMENSIONS[result.key.dimension]
    return result.value > 0.5 if about.is_yes_or_no else result.value * about.video_scale
