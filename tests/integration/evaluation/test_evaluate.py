"""`mora evaluate`: videos are scored by servers, bad ones refused, and an interrupted evaluation continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_data.video_writer import write_video
from mora_launch.environments.venvs import ROOT
from mora_launch.evaluation.command import EXIT_INCOMPLETE, evaluate
from mora_launch.evaluation.config import load_evaluation
from mora_launch.evaluation.evaluation import EvaluateOptions
from mora_launch.evaluation.measuring import decoded_video
from rich.console import Console

pytestmark = pytest.mark.timeout(300)
TOYS = ROOT / "tests" / "toy_agents" / "metrics.yaml"
DIMENSIONS = ("subject_consistency", "temporal_style")
NUM_CLIPS = 4
FATAL_NUM_FRAMES = 11


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that can be scored, and of each kind one that cannot."""
    folder = tmp_path_factory.mktemp("videos")
    numbers = np.random.default_rng(0)
    for number in range(NUM_CLIPS):
        pixels = numbers.integers(0, 256, (6 + number, 16, 20, 3), dtype=np.uint8)
        write_video(folder / f"clip {number} moves-0.mp4", pixels.repeat(8, axis=1).repeat(8, axis=2), 8.0)
    clip = pixels.repeat(8, axis=1).repeat(8, axis=2)
    write_video(folder / "single-0.mp4", clip[:1], 8.0)
    write_video(folder / "small-0.mp4", clip[:, :64, :96], 8.0)
    write_video(folder / "unnamed.mp4", clip[:5], 8.0)
    (folder / "text-0.mp4").write_text("no video")
    return folder


class Evaluated:
    """An evaluation in a folder.

    Attributes:
        code: exit code.
        told: what was printed.
    """

    def __init__(self, videos: Path, output: Path, *changes: str, **options: Any) -> None:
        self.output = output
        console = Console(file=open(os.devnull, "w"), record=True, width=200)  # noqa: SIM115
        chosen = EvaluateOptions((videos,), "all", **{"dimensions": DIMENSIONS, "output": output, **options})
        self.code = evaluate(chosen, load_evaluation(TOYS, changes), console)
        self.told = console.export_text()
        console.file.close()

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.output / "summary.json").read_text()))

    def scores(self) -> dict[tuple[str, str], Any]:
        """Everything of the results but how long they took."""
        return scores(self.output)


def scores(output: Path) -> dict[tuple[str, str], Any]:
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    kept = ("score", "weight", "details", "refused", "key", "num_frames", "fps")
    return {(line["file"], line["key"]["dimension"]): {name: line[name] for name in kept} for line in lines}


@pytest.fixture(scope="module")
def evaluated(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Evaluated, list[Path]]]:
    """An evaluation with one server for each metric, and the files that were decoded."""
    decoded: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        decode = decoded_video.decode
        patch.setattr(decoded_video, "decode", lambda path, *rest: decoded.append(path) or decode(path, *rest))
        yield Evaluated(videos, tmp_path_factory.mktemp("one")), decoded


def test_bad_videos_are_refused_with_a_reason_and_the_others_are_scored(
    evaluated: tuple[Evaluated, list[Path]],
) -> None:
    found, _ = evaluated
    assert found.code == 0
    about = found.summary
    assert about["dimensions"]["subject_consistency"]["num_videos"] == NUM_CLIPS + 1
    assert about["dimensions"]["temporal_style"]["num_videos"] == NUM_CLIPS
    refused = {(each["file"], each["dimension"]): each["why"] for each in about["refused"]}
    assert {file for file, _ in refused} == {"single-0.mp4", "small-0.mp4", "text-0.mp4", "unnamed.mp4"}
    assert refused["single-0.mp4", "subject_consistency"] == "subject_consistency: expected at least 2 frames, got 1"
    assert "sides of at least 128" in refused["small-0.mp4", "temporal_style"]
    assert refused["text-0.mp4", "temporal_style"].startswith("is a text file")
    assert "its prompt is not known" in refused["unnamed.mp4", "temporal_style"]
    assert about["dimensions"]["subject_consistency"]["num_refused"] == 3
    assert "single-0.mp4: subject_consistency: expected at least 2 frames" in found.told


def test_the_overall_value_weighs_videos_as_the_metric_says(evaluated: tuple[Evaluated, list[Path]]) -> None:
    found, _ = evaluated
    scored = [each for (_, name), each in found.scores().items() if name == DIMENSIONS[0] and each["score"] is not None]
    assert len({each["weight"] for each in scored}) > 1
    expected = sum(each["score"] * each["weight"] for each in scored) / sum(each["weight"] for each in scored)
    assert found.summary["dimensions"][DIMENSIONS[0]]["overall"] == pytest.approx(expected, rel=1e-12)


def test_every_video_is_decoded_once_for_all_metrics(evaluated: tuple[Evaluated, list[Path]], videos: Path) -> None:
    _, decoded = evaluated
    assert sorted(decoded) == sorted(videos.iterdir())


def test_report_files_and_licences_are_written(evaluated: tuple[Evaluated, list[Path]]) -> None:
    found, _ = evaluated
    page = (found.output / "report.html").read_text()
    assert "Object Consistency" in page
    assert "Worst and best videos" in page
    assert "expected at least 2 frames, got 1" in page
    assert "toy weights for subject_consistency: not for sale" in page
    assert "toy weights for subject_consistency: not for sale" in found.told
    own = json.loads((found.output / "mora_eval_results.json").read_text())
    assert [len(videos) for _, videos in own.values()] == [NUM_CLIPS + 1, NUM_CLIPS]
    assert (found.output / "mora_leaderboard.zip").is_file()


def test_two_servers_of_a_metric_give_the_same_results(
    evaluated: tuple[Evaluated, list[Path]], videos: Path, tmp_path: Path
) -> None:
    one, _ = evaluated
    two = Evaluated(
        videos, tmp_path, "evaluation.metrics.dino.num_servers=2", "evaluation.metrics.viclip.num_servers=2"
    )
    assert two.scores() == one.scores()
    for name in DIMENSIONS:
        assert two.summary["dimensions"][name]["overall"] == one.summary["dimensions"][name]["overall"]
    assert {path.name for path in (tmp_path / "servers" / "logs").glob("*.out")} == {
        "dino.0.1.out", "dino.1.1.out", "viclip.0.1.out", "viclip.1.1.out",
    }  # fmt: skip


def test_a_video_that_kills_its_server_fails_alone_and_another_version_is_measured_again(
    videos: Path, tmp_path: Path
) -> None:
    fatal = f"evaluation.metrics.dino.options.fatal_num_frames={6 + 2}"
    found = Evaluated(videos, tmp_path, fatal)
    assert found.code == EXIT_INCOMPLETE
    assert [(each["file"], each["dimension"]) for each in found.summary["failed"]] == [
        ("clip 2 moves-0.mp4", "subject_consistency")
    ]
    assert found.summary["dimensions"]["subject_consistency"]["num_videos"] == NUM_CLIPS
    assert found.summary["dimensions"]["temporal_style"]["num_videos"] == NUM_CLIPS
    assert "was killed by SIGKILL; starting it again" in found.told
    before = (tmp_path / "results.jsonl").read_text()
    again = Evaluated(videos, tmp_path, "evaluation.metrics.viclip.options.version=second")
    assert again.code == 0
    added = (tmp_path / "results.jsonl").read_text().removeprefix(before).splitlines()
    kinds = [(line["key"]["dimension"], line["file"]) for line in map(json.loads, added)]
    assert kinds.count(("subject_consistency", "clip 2 moves-0.mp4")) == 1
    assert sum(name == "temporal_style" for name, _ in kinds) == NUM_CLIPS + 3
    assert len(kinds) == NUM_CLIPS + 4


def test_a_metric_without_weights_is_left_out_and_the_others_measure(videos: Path, tmp_path: Path) -> None:
    found = Evaluated(videos, tmp_path, f"evaluation.metrics.dino.options.weights={tmp_path}/absent.pth")
    assert found.code == EXIT_INCOMPLETE
    about = found.summary["dimensions"]
    assert "absent.pth: expected a file, there is none" in about["subject_consistency"]["not_measured"]
    assert about["temporal_style"]["num_videos"] == NUM_CLIPS


def test_a_connection_is_compared_with_the_videos_that_it_connects(tmp_path: Path) -> None:
    colours = {"before": (200, 40, 40), "between": (120, 130, 40), "after": (40, 40, 200)}
    clips = {name: np.tile(np.array(colour, dtype=np.uint8), (8, 128, 160, 1)) for name, colour in colours.items()}
    for name in ("before", "after"):
        write_video(tmp_path / "in" / f"{name}.mp4", clips[name], 8.0)
    write_video(tmp_path / "out" / "whole.mp4", np.concatenate(list(clips.values())), 8.0)
    write_video(tmp_path / "out" / "other.mp4", clips["between"], 8.0)
    (tmp_path / "pairs.json").write_text(json.dumps({"whole.mp4": ["in/before.mp4", "in/after.mp4"]}))
    found = Evaluated(
        tmp_path / "out", tmp_path / "results", task="connect", pairs=tmp_path / "pairs.json",
        dimensions=("overall_consistency",),
    )  # fmt: skip
    assert found.code == 0
    before, between, after = (np.array(colour) / np.linalg.norm(colour) for colour in colours.values())
    expected = (before @ between + between @ after) / 2
    about = found.summary["dimensions"]["tmean"]
    assert about["overall"] == pytest.approx(expected, abs=0.02)  # H.264 changes colours a little
    assert (about["num_videos"], about["num_refused"]) == (1, 1)
    assert about["settings"]["compared"] == "the generated part"
    refused = {(each["file"], each["dimension"]): each["why"] for each in found.summary["refused"]}
    assert "name it in --pairs" in refused["other.mp4", "tmean"]
    assert list(json.loads((tmp_path / "results" / "mora_eval_results.json").read_text())) == []


def _killed_times(videos: Path, output: Path, num_kills: int) -> None:
    """Kill an evaluation each time it has stored one more result, then let it end."""
    command = [
        sys.executable, "-m", "mora_launch", "evaluate", str(videos), "--config", str(TOYS), "-o", str(output),
        "--set", "evaluation.metrics.dino.options.delay_s=0.3",
        "--dimension", DIMENSIONS[0],
    ]  # fmt: skip
    results = output / "results.jsonl"
    for _ in range(num_kills):
        there = _num_lines(results)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while _num_lines(results) == there and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("num_kills", [1, pytest.param(10, marks=pytest.mark.long)])
def test_an_evaluation_that_was_killed_continues_to_the_same_results(
    evaluated: tuple[Evaluated, list[Path]], videos: Path, tmp_path: Path, num_kills: int
) -> None:
    undisturbed = {place: each for place, each in evaluated[0].scores().items() if place[1] == DIMENSIONS[0]}
    _killed_times(videos, tmp_path, num_kills)
    assert scores(tmp_path) == undisturbed
    assert _num_lines(tmp_path / "results.jsonl") == len(undisturbed)
