"""Cases of formulas: scores of given features, flows, frames and overall values."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch
from mora_environment import vbench_totals
from torch import Tensor

from mora_env_vbench.formulas.aesthetic import aesthetic_scores
from mora_env_vbench.formulas.consistency import consistency
from mora_env_vbench.formulas.dynamic import flow_values, moves
from mora_env_vbench.formulas.smoothness import made_differences, smoothness, to_bytes
from mora_env_vbench.goldens.case_file import Case, CaseFile
from mora_env_vbench.goldens.comparison import Differences

TOLERANCE = 1e-6
_DISPLAYED = {  # names of VBench's image-to-video report that are not simply the dimension's
    "video_text_camera_motion": "camera_motion",
    "video_image_subject_consistency": "i2v_subject",
    "video_image_background_consistency": "i2v_background",
}


def check_formula(file: CaseFile, case: Case, found: Differences) -> None:
    """Compare one case."""
    if "pooled" in case.values:
        _consistency(case, found)
    elif "weight" in case.inputs:
        _aesthetic(file, case, found)
    elif "decisions" in case.values:
        _dynamic(case, found)
    elif "sequence" in case.inputs:
        _smoothness(case, found)
    elif "img" in case.outputs:
        found.add(to_bytes(case.inputs["x"])[0], case.outputs["img"])
    elif "sets" in case.values:
        _totals(case, found)
    else:
        raise ValueError(f"no such comparison: {case.description}")


def _features(case: Case) -> list[Tensor]:
    return [case.inputs[name] for name in sorted(case.inputs, key=lambda name: int(name.rpartition("_")[2]))]


def weighted_mean(results: list[dict[str, Any]]) -> float:
    """The overall value of several videos."""
    return sum(each["score"] * each["weight"] for each in results) / sum(each["weight"] for each in results)


def _consistency(case: Case, found: Differences) -> None:
    results = [consistency(features) for features in _features(case)]
    scores = [result["score"] for result in results]
    pooled = weighted_mean(results)
    found.add(scores, case.values["per_video"])
    found.add(pooled, case.values["pooled"])
    found.add(fmean(scores), case.values["mean_of_videos"])
    found.add(scores, case.values["background_per_video"])
    found.add(pooled, case.values["background_pooled"])


def _aesthetic(file: CaseFile, case: Case, found: Differences) -> None:
    features = next(_features(each) for each in file.cases if "pooled" in each.values)
    bias = torch.tensor([case.number(r"bias ([\d.]+)", 5.0)])
    scores = [float(aesthetic_scores(each, case.inputs["weight"], bias).mean()) for each in features]
    found.add(scores, case.values["per_video"])
    found.add(fmean(scores), case.values["overall"])


def _dynamic(case: Case, found: Differences) -> None:
    for told in case.values["decisions"]:
        found.add(moves(told["scores"], told["thres"], told["count_num"]), told["moves"])
    found.add(float(flow_values(case.inputs["flow"])[0]), case.values["flow_value"])


def _smoothness(case: Case, found: Differences) -> None:
    differences = made_differences(case.inputs["frames"], case.inputs["sequence"][1::2])
    found.add(float(differences.mean()), case.values["vfi"])
    found.add(smoothness(differences), case.values["score"])


def _totals(case: Case, found: Differences) -> None:
    for told in case.values["sets"]:
        overall = _by_dimension(told["scores"])
        is_image = "i2v" in told
        totals = (vbench_totals.image_to_video_totals if is_image else vbench_totals.text_to_video_totals)(overall)
        found.add(totals.quality, told["quality"])
        found.add(totals.other, told["i2v" if is_image else "semantic"])
        found.add(totals.total, told["total"])


def _by_dimension(scores: Mapping[str, float]) -> dict[str, float]:
    names = {name: name.lower().replace(" ", "_").replace("-", "_") for name in scores}
    return {_DISPLAYED.get(names[name], names[name]): value for name, value in scores.items()}
