"""Training and rounds measure their own videos: refused ones are counted, and a command that was ended continues."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mora_launch.environments.venvs import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.timeout(300)
CONFIG = "tests/toy_agents/pair.yaml"
SCORED, REFUSED = "subject_consistency", "temporal_style"
NUM_STEPS = 2
NUM_HELD_OUT = 3
EXIT_INTERRUPTED = 130
LONG_KILL = pytest.param(signal.SIGKILL, marks=pytest.mark.long)
LONG_INTERRUPT = pytest.param(signal.SIGINT, marks=pytest.mark.long)


def metric(dimension: str, **options: Any) -> str:
    return json.dumps({"environment": "toys", "kind": "metric", "options": {"dimensions": [dimension], **options}})


COMMON = (
    f"evaluation.metrics.dino={metric(SCORED, min_side=16)}",
    f"evaluation.metrics.viclip={metric(REFUSED)}",  # the videos are too small for it
    f"training.num_steps={NUM_STEPS}", "training.checkpoint_every=1", "data.num_clips=4",
)  # fmt: skip
TRAIN = (*COMMON, f"samples.metrics=[{SCORED},{REFUSED}]", "samples.num_prompts=2")
ROUNDS = (
    *COMMON, f"synthesis.evaluation_metrics=[{SCORED},{REFUSED}]", "synthesis.num_rounds=1",
    "synthesis.prompts_per_round=2", "synthesis.num_candidates=2",
    f"synthesis.num_evaluation_prompts={NUM_HELD_OUT}",
)  # fmt: skip
SLOW = f"evaluation.metrics.dino={metric(SCORED, min_side=16, delay_s=0.5)}"


def command(verb: str, run: Path, *changes: str, resume: bool = False) -> list[str]:
    words = [sys.executable, "-m", "mora_launch", verb, CONFIG, "--run", str(run)]
    return [*words, *(word for change in changes for word in ("--set", change)), *(("--resume",) if resume else ())]


def mora(verb: str, run: Path, *changes: str, resume: bool = False) -> tuple[int, str]:
    words = command(verb, run, *changes, resume=resume)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    return done.returncode, done.stdout + done.stderr


def ended_while_it_measures(verb: str, run: Path, folder: Path, number: int, *changes: str) -> None:
    """Send a signal to a command as soon as it has stored the first score."""
    process = subprocess.Popen(
        command(verb, run, *changes, SLOW), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    results = folder / "results.jsonl"
    deadline = time.monotonic() + 200
    while not (results.exists() and SCORED in results.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == (EXIT_INTERRUPTED if number == signal.SIGINT else -number)
    assert not (folder / "metrics.json").exists()


def values(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text())["values"])


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Points of the curves of metrics, as TensorBoard shows them."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("metrics/")]
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in tags}


def starts_of_servers(folder: Path) -> int:
    return len(list((folder / "servers" / "logs").glob("*.out")))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    code, said = mora("train", run, *TRAIN)
    assert code == 0, said
    assert re.search(rf"{REFUSED} +- \(2 refused\) +- \(2 refused\)", said), said
    return run


def test_samples_before_and_after_training_are_points_of_a_curve(trained: Path) -> None:
    found = values(trained / "samples" / "metrics")
    assert list(found) == ["before", "after"]
    scores = [found[label][SCORED]["overall"] for label in found]
    assert [score["num_videos"] for score in scores] == [2, 2]
    assert scores[0]["value"] != scores[1]["value"], "training changes what the agents make"
    points = curves(trained)
    assert list(points) == [f"metrics/{SCORED}"], "a dimension that refuses every sample has no point"
    assert [step for step, _ in points[f"metrics/{SCORED}"]] == [0, NUM_STEPS]
    assert [value for _, value in points[f"metrics/{SCORED}"]] == pytest.approx([each["value"] for each in scores])


@pytest.mark.parametrize("number", [signal.SIGKILL, LONG_INTERRUPT])
def test_training_ended_while_its_samples_are_measured_gives_the_same_curves(
    trained: Path, tmp_path: Path, number: int
) -> None:
    run = tmp_path / "run"
    ended_while_it_measures("train", run, run / "samples" / "metrics", number, *TRAIN)
    code, said = mora("train", run, *TRAIN, resume=True)
    assert code == 0, said
    assert curves(run) == curves(trained)
    assert len(list((run / "tensorboard").glob("*.samples"))) == 1


def test_a_metric_that_cannot_be_used_is_refused_before_training_starts(tmp_path: Path) -> None:
    wrong = f"evaluation.metrics.dino={metric(SCORED, delay_s='long')}"
    code, said = mora("train", tmp_path / "run", *TRAIN, wrong)
    assert code == 1
    assert "samples.metrics cannot be measured: evaluation.metrics.dino.options" in " ".join(said.split())
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An uninterrupted round, and what it printed."""
    run = tmp_path_factory.mktemp("rounds") / "run"
    code, said = mora("synthesize", run, *ROUNDS)
    assert code == 0, said
    return run, said


def test_held_out_videos_are_measured_before_and_after_a_round(whole: tuple[Path, str]) -> None:
    run, said = whole
    found = values(run / "evaluation" / "metrics")
    assert list(found) == ["step-0", f"step-{NUM_STEPS}"]
    lines = (run / "evaluation" / "metrics" / "results.jsonl").read_text()
    assert "NaN" not in lines
    assert lines.count("\n") == 2 * 2 * NUM_HELD_OUT
    page = (run / "rounds" / "01" / "report.html").read_text()
    for label in found:
        score = found[label][SCORED]["overall"]
        assert score["num_videos"] == NUM_HELD_OUT
        shown = f"{score['value']:.4f} ± {score['half_width']:.4f}"
        assert f"<td>{shown}</td>" in page
        assert shown in said
        assert found[label][REFUSED] == {"overall": None, "num_refused": NUM_HELD_OUT, "num_failed": 0}
    assert page.count(f"<td>- ({NUM_HELD_OUT} refused)</td>") == 2


def test_a_finished_run_starts_no_metric(whole: tuple[Path, str]) -> None:
    run, _ = whole
    folder = run / "evaluation" / "metrics"
    before, starts = (folder / "metrics.json").read_text(), starts_of_servers(folder)
    assert mora("synthesize", run, *ROUNDS, resume=True)[0] == 0
    assert starts_of_servers(folder) == starts
    assert (folder / "metrics.json").read_text() == before


@pytest.mark.parametrize("number", [signal.SIGINT, LONG_KILL])
def test_rounds_ended_while_held_out_videos_are_measured_give_the_same_values(
    whole: tuple[Path, str], tmp_path: Path, number: int
) -> None:
    run = tmp_path / "run"
    ended_while_it_measures("synthesize", run, run / "evaluation" / "metrics", number, *ROUNDS)
    code, said = mora("synthesize", run, *ROUNDS, resume=True)
    assert code == 0, said
    assert values(run / "evaluation" / "metrics") == values(whole[0] / "evaluation" / "metrics")
    lines = (run / "evaluation" / "metrics" / "results.jsonl").read_text()
    assert lines.count("\n") == 2 * 2 * NUM_HELD_OUT, "no measurement was repeated"


def test_a_finished_run_can_measure_one_more_dimension(whole: tuple[Path, str]) -> None:
    folder = whole[0] / "evaluation" / "metrics"
    before, values_before = (folder / "results.jsonl").read_text(), values(folder)
    added = "motion_smoothness"
    more = (f"synthesis.evaluation_metrics=[{SCORED},{added}]", f"evaluation.metrics.amt={metric(added, min_side=16)}")
    code, said = mora("synthesize", whole[0], *ROUNDS, *more, resume=True)
    assert code == 0, said
    lines = (folder / "results.jsonl").read_text().removeprefix(before).splitlines()
    assert [json.loads(line)["key"]["dimension"] for line in lines] == [added] * 2 * NUM_HELD_OUT
    found = values(folder)
    assert [each[SCORED] for each in found.values()] == [each[SCORED] for each in values_before.values()]
    assert all(each[added]["overall"]["num_videos"] == NUM_HELD_OUT for each in found.values())
