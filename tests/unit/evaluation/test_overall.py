"""Overall values, totals, summary, VBench's files, tables: pure functions of results."""

from __future__ import annotations

import io
import json
import math
import random
import zipfile

import pytest
from mora_launch.evaluation.measuring.measurements import Failure
from mora_launch.evaluation.output.overall import overall, totals
from mora_launch.evaluation.output.paper_figures import TABLES
from mora_launch.evaluation.output.summary import summary
from mora_launch.evaluation.output.tables import filled_tables, markdown, notes_on, own_rows
from mora_launch.evaluation.output.vbench_files import leaderboard_zip, vbench_results
from mora_launch.evaluation.suite.dimensions import QUALITY

from .made_results import outcome, result


def test_the_overall_value_is_the_weighted_mean_of_scored_videos() -> None:
    scored = [result(file, "subject_consistency", *own) for file, own in (("a", (0.5,)), ("c", (None,)))]
    found = overall([*scored, result("b", "subject_consistency", 0.9, weight=3.0)])
    assert found is not None
    assert found.value == pytest.approx(0.8)
    assert found.num_videos == 2
    assert overall([result("c", "subject_consistency", None)]) is None


def test_with_equal_weights_the_interval_is_that_of_a_mean() -> None:
    scores = [0.1, 0.4, 0.4, 0.7]
    found = overall([result(str(number), "motion_smoothness", score) for number, score in enumerate(scores)])
    assert found is not None
    deviation = math.sqrt(sum((score - 0.4) ** 2 for score in scores) / 3)
    assert found.half_width == pytest.approx(1.96 * deviation / 2)
    single = overall([result("a", "motion_smoothness", 0.5)])
    assert single is not None
    assert single.half_width is None


def test_the_order_of_results_changes_no_bit() -> None:
    numbers = random.Random(3)
    results = [result(str(n), "motion_smoothness", numbers.random(), weight=numbers.random()) for n in range(200)]
    first = overall(results)
    for _ in range(5):
        numbers.shuffle(results)
        assert overall(results) == first


def test_totals_need_all_six_dimensions() -> None:
    values = dict.fromkeys(QUALITY, 0.5)
    assert totals({name: 0.5 for name in QUALITY[:5]}) == {}
    assert totals(values)["video_quality"] == pytest.approx(0.5)
    assert set(totals(values)) == {"video_quality", "vbench_quality_without_flickering"}
    assert set(totals({**values, "temporal_flickering": 0.9})) == {"video_quality", "vbench_quality"}


def test_the_summary_counts_refusals_and_failures_and_has_no_nan() -> None:
    made = outcome({"a": {"imaging_quality": 0.6}, "b": {"imaging_quality": None}})
    made.failed.append(Failure("c", "imaging_quality", "its server died"))
    about = summary(made)
    assert about["dimensions"]["imaging_quality"] == {
        "overall": 0.6, "half_width_95": None, "num_videos": 1, "num_refused": 1, "num_failed": 1, "num_missing": 0,
        "metric": "metric", "version": "1", "settings": {}, "options": {},
    }  # fmt: skip
    assert about["shapes"] == [{"width": 160, "height": 128, "num_frames": 8, "fps": 8.0, "num_videos": 2}]
    assert [each["why"] for each in about["refused"]] == ["too small"]
    json.dumps(about, allow_nan=False)


def test_vbenchs_files_have_its_scales_and_leave_refused_videos_out() -> None:
    made = outcome(
        {"a": {"imaging_quality": 0.6, "dynamic_degree": 1.0}, "b": {"imaging_quality": None, "dynamic_degree": 0.0}}
    )
    assert vbench_results(made) == {
        "imaging_quality": [0.6, [{"video_path": "a.mp4", "video_results": 60.0}]],
        "dynamic_degree": [
            0.5,
            [{"video_path": "a.mp4", "video_results": True}, {"video_path": "b.mp4", "video_results": False}],
        ],
    }
    content = leaderboard_zip(made)
    assert leaderboard_zip(made) == content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == [
            "model_imaging_quality_eval_results.json",
            "model_dynamic_degree_eval_results.json",
        ]
        found = json.loads(archive.read("model_imaging_quality_eval_results.json"))
    assert found == {"imaging_quality": vbench_results(made)["imaging_quality"]}


def test_every_row_of_the_papers_tables_has_a_figure_for_each_column() -> None:
    assert [len(values) for table in TABLES for _, values in table.rows] == [
        len(table.columns) for table in TABLES for _ in table.rows
    ]


def test_the_papers_video_quality_is_the_mean_of_its_six_columns() -> None:
    """So that a figure in the wrong column is noticed. The paper rounds each of them to two digits."""
    differing = {
        name: round(values[0] - sum(values[1:7]) / 6, 3)  # type: ignore[operator, arg-type]
        for table in TABLES
        if table.columns[0].key == "video_quality"
        for name, values in table.rows
        if abs(values[0] - sum(values[1:7]) / 6) > 0.005  # type: ignore[operator, arg-type]
    }
    assert differing == {}


def test_our_rows_are_next_to_the_papers_with_number_and_interval() -> None:
    scores: dict[str, dict[str, float | None]] = {
        f"{step}-{number}": dict.fromkeys(QUALITY, 0.5 + 0.1 * number + (0.1 if step == "after" else 0.0))
        for step in ("before", "after")
        for number in range(2)
    }
    about = summary(outcome(scores, has_groups=True, modulation="none", made=["dino"]))
    tables = filled_tables(own_rows(about))
    first = next(table for table in tables if table.title.startswith("Table 1"))
    assert [name for name, _ in first.own] == [
        "model, without self-modulation, before",
        "model, without self-modulation, after",
    ]
    assert first.own[1][1][:2] == ["0.650", "0.650 ± 0.098 (n 2)"]
    assert first.own[1][1][-2:] == ["-", "1.000"]
    assert first.paper[0][1][0] == "0.797"
    connect = next(table for table in tables if "connect" in table.title)
    assert connect.own == []
    notes = notes_on([about])
    assert notes[0].startswith("The weights of dino are made")
    assert "| Sora (paper) | 0.797 |" in markdown(tables, notes)


def test_of_a_run_the_overall_values_are_those_of_its_last_step() -> None:
    made = outcome(
        {f"{step}-0": {"imaging_quality": score} for step, score in (("before", 0.2), ("after", 0.6))}, has_groups=True
    )
    about = summary(made)
    assert about["group"] == "after"
    assert about["dimensions"]["imaging_quality"]["overall"] == 0.6
    assert about["groups"]["before"]["dimensions"]["imaging_quality"]["overall"] == 0.2
    assert vbench_results(made)["imaging_quality"] == [0.6, [{"video_path": "after-0.mp4", "video_results": 60.0}]]
