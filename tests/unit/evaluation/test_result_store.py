"""Results on disk: whole lines only, and only those of the same file, version and settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from mora_launch.evaluation.measuring.plan import Measured, make_plan
from mora_launch.evaluation.measuring.result_store import ResultStore
from mora_launch.evaluation.suite.video_file import VideoFile
from mora_runtime.errors import StorageError

from .made_results import result

VIDEO = VideoFile(Path("a.mp4"), "a.mp4", prompt="a cat")


def test_a_stored_result_is_there_for_the_next_process(tmp_path: Path) -> None:
    made = result("a", "motion_smoothness", 0.1, details={"changes": [0.25, 1e-9]})
    with ResultStore(tmp_path / "r.jsonl") as store:
        store.add(made)
    with ResultStore(tmp_path / "r.jsonl") as store:
        assert store.get(made.key) == made


def test_a_line_that_a_killed_process_left_in_part_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    first, second = result("a", "motion_smoothness", 0.1), result("b", "motion_smoothness", 0.2)
    with ResultStore(path) as store:
        store.add(first)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"file": "b", "sc')
    with ResultStore(path) as store:
        store.add(second)
    with ResultStore(path) as store:
        assert store.get(first.key) == first
        assert store.get(second.key) == second
    assert path.read_bytes().startswith(whole)
    assert path.read_bytes().count(b"\n") == 2


def test_lines_of_another_version_of_mora_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"file": "a", "unknown": 1}\n[1]\nnonsense\n')
    with ResultStore(path) as store:
        store.add(result("a", "motion_smoothness", 0.1))
        assert store.get(result("a", "motion_smoothness", 0.1).key) is not None


def test_a_result_that_is_not_finite_cannot_be_stored(tmp_path: Path) -> None:
    with ResultStore(tmp_path / "r.jsonl") as store, pytest.raises(ValueError, match="not JSON compliant"):
        store.add(result("a", "motion_smoothness", float("nan")))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"), ResultStore(tmp_path / "absent" / "r.jsonl"):
        pass


def measured(dimension: str = "motion_smoothness", version: str = "1", device: str = "cpu") -> Measured:
    return Measured(dimension, "amt", version, {"device": device}, {})


@pytest.mark.parametrize(
    ("sha256", "video", "how", "mode", "num_tasks"),
    [
        ("same", VIDEO, measured(), "short", 0),
        ("other file", VIDEO, measured(), "short", 1),
        ("same", VIDEO, measured(version="2"), "short", 1),
        ("same", VIDEO, measured(device="cuda"), "short", 1),
        ("same", VIDEO, measured(), "long", 1),
        ("same", VideoFile(Path("b.mp4"), "b.mp4", prompt="a dog"), measured(), "short", 0),
    ],
)
def test_only_results_of_the_same_file_version_and_settings_count(
    tmp_path: Path, sha256: str, video: VideoFile, how: Measured, mode: str, num_tasks: int
) -> None:
    with ResultStore(tmp_path / "r.jsonl") as store:
        first = make_plan([(VIDEO, "same")], [measured()], store, "short")
        assert first.num_tasks == 1
        (task,) = first.todo[0].tasks
        made = result("a.mp4", "motion_smoothness", 0.5)
        store.add(made.__class__(**{**vars(made), "key": task.key}))
        plan = make_plan([(video, sha256)], [how], store, mode)
        assert plan.num_tasks == num_tasks
        assert len(plan.results(store)) == 1 - num_tasks


def test_another_prompt_counts_where_the_dimension_needs_it(tmp_path: Path) -> None:
    with ResultStore(tmp_path / "r.jsonl") as store:
        keys = [
            make_plan(
                [(VideoFile(Path("a"), "a", prompt=prompt), "same")], [measured("temporal_style")], store, "short"
            ).keys
            for prompt in ("a cat", "a dog")
        ]
    assert keys[0] != keys[1]


def test_files_of_the_same_content_are_measured_once(tmp_path: Path) -> None:
    videos = [(VideoFile(Path(name), name), "same") for name in ("a", "b")]
    with ResultStore(tmp_path / "r.jsonl") as store:
        plan = make_plan(videos, [measured()], store, "short")
    assert plan.num_tasks == 1
    assert len(plan.keys) == 2


def test_a_video_without_what_a_dimension_needs_is_refused_before_it_is_measured(tmp_path: Path) -> None:
    how = [measured("temporal_style"), measured("appearance_style"), measured()]
    with ResultStore(tmp_path / "r.jsonl") as store:
        plan = make_plan([(VideoFile(Path("a"), "a"), "same")], how, store, "short")
    assert plan.num_tasks == 1
    assert "its prompt is not known" in plan.refused["a", "temporal_style"]
    assert "the words of its style are not known" in plan.refused["a", "appearance_style"]
