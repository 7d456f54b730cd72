"""Values of the steps of a run: every video is scored, refused or failed, and steps are numbers on a curve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mora_launch.evaluation.output.overall import Overall
from mora_launch.evaluation.output.summary import Refusal
from mora_launch.evaluation.run_metrics import VALUES_FILE, StepValue, read_values, values_of
from mora_launch.evaluation.sample_metrics import by_step

from .made_results import outcome

NAME = "motion_smoothness"


def test_a_video_without_a_score_is_refused_or_failed() -> None:
    found = outcome(
        {"before-0": {NAME: 0.5}, "before-1": {NAME: None}, "after-0": {NAME: 0.25}, "after-1": {NAME: 0.75}},
        has_groups=True,
    )
    del found.results["after-1", NAME]
    values = values_of(found)
    assert values["before"][NAME] == StepValue(Overall(0.5, 1, None), num_refused=1, num_failed=0)
    assert values["after"][NAME] == StepValue(Overall(0.25, 1, None), num_refused=0, num_failed=1)
    assert str(values["before"][NAME]) == "0.5000 (1 refused)"
    assert str(values["after"][NAME]) == "0.2500 (1 failed)"
    found.refused.append(Refusal("after-1", NAME, "cannot be read"))
    assert values_of(found)["after"][NAME] == StepValue(Overall(0.25, 1, None), num_refused=1, num_failed=0)


def test_a_step_whose_metric_was_lost_has_only_failures() -> None:
    found = outcome({"before-0": {NAME: 0.5}, "before-1": {NAME: 0.5}}, has_groups=True)
    lost = replace(found, results={}, measured=[])
    assert values_of(lost) == {"before": {NAME: StepValue(None, num_refused=0, num_failed=2)}}


def test_samples_of_one_step_are_one_point_and_points_are_in_order() -> None:
    value = {NAME: StepValue(None, 0, 0)}
    labels = dict.fromkeys(["before", "step-12", "step-5", "stopped-5", "after"], value)
    assert list(by_step(labels, last_step=40)) == [0, 5, 12, 40]


@pytest.mark.parametrize("content", [None, "", "{}", '{"made_from": "x", "values": {"before": {"a": 1.0}}}'])
def test_a_file_of_another_form_counts_as_missing(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / VALUES_FILE).write_text(content)
    assert read_values(tmp_path) == {}
