"""TCON and Tmean: which videos and frames are compared, and the formulas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mora_launch.evaluation.measuring.feature_plan import kept_frames
from mora_launch.evaluation.output.paper_formulas import cosine, tmean
from mora_launch.evaluation.suite.pairs import with_inputs
from mora_launch.evaluation.suite.video_file import VideoFile
from mora_runtime.errors import BadArgument, SettingsError


def test_the_cosine_is_that_of_the_angle_and_tmean_a_mean_of_two() -> None:
    assert cosine([1.0, 0.0], [2.0, 0.0]) == 1.0
    assert cosine([1.0, 0.0], [1.0, 1.0]) == pytest.approx(0.5**0.5)
    assert tmean([1.0, 0.0], [1.0, 1.0], [0.0, 1.0]) == pytest.approx(0.5**0.5)
    assert tmean([1.0, 0.0], [1.0, 0.0], [0.0, 1.0]) == pytest.approx(0.5)


@pytest.mark.parametrize(("first", "second"), [([0.0, 0.0], [1.0, 0.0]), ([1.0], [1.0, 0.0])])
def test_vectors_without_an_angle_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(BadArgument, match="features"):
        cosine(first, second)


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ({}, slice(0, 20)),
        ({"cut_before_s": 0.75}, slice(6, 20)),
        ({"cut_before_s": 0.75, "cut_after_s": 1.0}, slice(6, 12)),
        ({"cut_before_s": 0.75, "cut_after_s": 1.0, "num_borders": 1}, slice(5, 13)),
    ],
)
def test_the_generated_part_has_the_frames_that_are_not_of_the_inputs(cut: dict[str, float], kept: slice) -> None:
    assert kept_frames(cut, num_frames=20, fps=8.0) == kept


def written(folder: Path, content: object) -> Path:
    (folder / "a.mp4").touch()
    (folder / "b.mp4").touch()
    path = folder / "pairs.json"
    path.write_text(json.dumps(content))
    return path


VIDEOS = [VideoFile(Path("out/x.mp4"), "x.mp4"), VideoFile(Path("out/y.mp4"), "y.mp4")]


def test_inputs_are_beside_the_file_that_names_them(tmp_path: Path) -> None:
    extended = with_inputs(VIDEOS, written(tmp_path, {"x.mp4": "a.mp4"}), "extend")
    assert [[each.path for each in video.inputs] for video in extended] == [[tmp_path / "a.mp4"], []]
    connected = with_inputs(VIDEOS, written(tmp_path, {"y.mp4": ["a.mp4", "b.mp4"]}), "connect")
    assert [each.name for each in connected[1].inputs] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("content", "task", "said"),
    [
        ({"x.mp4": "a.mp4"}, "connect", r"x\.mp4: expected 2 input"),
        ({"x.mp4": ["a.mp4", "b.mp4"]}, "edit", r"x\.mp4: expected 1 input"),
        ({"x.mp4": "c.mp4"}, "edit", r"c\.mp4 is no file"),
        ({"z.mp4": "a.mp4"}, "edit", r"z\.mp4 is none of the videos"),
        ({"x.mp4": "a.mp4"}, "text-to-video", "goes with --task image-to-video, extend, edit, connect"),
        (["x.mp4"], "edit", "expected a JSON object"),
    ],
)
def test_wrong_pairs_are_refused(tmp_path: Path, content: object, task: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        with_inputs(VIDEOS, written(tmp_path, content), task)
