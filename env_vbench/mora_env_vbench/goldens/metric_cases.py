"""Cases of whole metrics: agents with made weights of the published sizes measure made clips."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mora_environment.kind import imported
from mora_environment.vbench_totals import PAPER_QUALITY, paper_quality
from torch import Tensor

from mora_env_vbench.__main__ import KINDS
from mora_env_vbench.goldens.case_file import Case, CaseFile
from mora_env_vbench.goldens.comparison import Differences
from mora_env_vbench.goldens.formula_cases import weighted_mean
from mora_env_vbench.goldens.model_cases import recipe_of
from mora_env_vbench.goldens.published_networks import LAYOUTS
from mora_env_vbench.weights.recipe import made_clip

TOLERANCE = 1e-5
_ITERATED_TOLERANCE = 1e-3  # of RAFT's pair values, on the scale of their reference
_PERCENT = {"imaging_quality": 100.0}  # VBench tells single videos and frames of it on this scale
_QUALITY = "video_quality"  # a case of several dimensions
_KINDS = {  # by dimension
    "subject_consistency": "dino",
    "background_consistency": "clip",
    "appearance_style": "clip",
    "aesthetic_quality": "aesthetic",
    "motion_smoothness": "amt",
    "dynamic_degree": "raft",
    "temporal_flickering": "raft",
    "imaging_quality": "musiq",
    "temporal_style": "viclip",
    "overall_consistency": "viclip",
}
Result = dict[str, Any]


class Measurements:
    """What the agents say about the videos of a file; each network that a case needs is made and loaded once."""

    def __init__(self, file: CaseFile) -> None:
        self._file = file
        self._results: dict[str, dict[str, Result]] = {}

    def of(self, dimension: str) -> dict[str, Result]:
        """By the video's file name, the answers of `measure`.

        Raises:
            ValueError: no kind measures the dimension.
        """
        if dimension not in _KINDS:
            raise ValueError(f"no kind of this environment measures {dimension}")
        if dimension not in self._results:
            self._measure(_KINDS[dimension])
        return self._results[dimension]

    def overall(self, dimension: str) -> float:
        """The overall value of a dimension."""
        return weighted_mean(list(self.of(dimension).values()))

    def _measure(self, kind: str) -> None:
        """Measure all dimensions of a kind that the file has."""
        with tempfile.TemporaryDirectory(prefix="mora-goldens-") as folder:
            agent = self._agent(kind, Path(folder))
        wanted = {case.name for case in self._file.cases}
        if _QUALITY in wanted:
            wanted.update(PAPER_QUALITY)
        for dimension in agent.describe()["dimensions"]:
            if dimension in wanted:
                self._results[dimension] = dict(self._answers(agent, dimension))

    def _agent(self, kind: str, folder: Path) -> Any:
        """An agent with the weights that the file tells."""
        options = KINDS[kind].options.model_validate({"weights": str(folder)})
        for _, _, published in options.published():  # type: ignore[attr-defined]
            recipe = recipe_of(self._file.meta["weights"][published.name], "seed")
            LAYOUTS[published.name].write(folder / published.name, recipe)
        return imported(KINDS[kind].build, owner=kind)(options, torch.device("cpu"))

    def _answers(self, agent: Any, dimension: str) -> Iterator[tuple[str, Result]]:
        for video in self._file.meta["videos"]:
            names = ("seed", "frames", "height", "width", "dy", "dx", "cell", "noise")
            frames = made_clip(**{name: video[name] for name in names if name in video})
            words = video["appearance_style"] if dimension == "appearance_style" else ""
            yield (
                video["file"],
                agent.measure(
                    dimension=dimension, frames=frames, fps=float(video["fps"]), prompt=video["prompt"], words=words
                ),
            )


def check_metric(measurements: Measurements, case: Case, found: Differences) -> None:
    """Compare one case."""
    if case.name == _QUALITY:
        found.add(paper_quality({name: measurements.overall(name) for name in PAPER_QUALITY}), case.values["overall"])
        return
    results, scale = measurements.of(case.name), _PERCENT.get(case.name, 1.0)
    found.add(measurements.overall(case.name), case.values["overall"])
    for name, score in case.values.get("per_video", {}).items():
        found.add(results[name]["score"] * (1.0 if isinstance(score, bool) else scale), score)
    for name, values in case.values.get("per_frame", {}).items():
        found.add(_detail(results[name]), values)
    for name, detail in case.values.get("detail", {}).items():
        _check_detail(results[name], detail, found)


def _check_detail(result: Result, detail: dict[str, Any], found: Differences) -> None:
    if "differences" in detail:
        found.add(_detail(result), detail["differences"])
    if "pair_values" in detail:
        found.add(_detail(result), detail["pair_values"], _ITERATED_TOLERANCE)
    if "moves" in detail:
        found.add(bool(result["score"]), detail["moves"])


def _detail(result: Result) -> Tensor:
    """The values of single frames or pairs, the only tensor of an answer."""
    return next(value for value in result.values() if isinstance(value, Tensor))
