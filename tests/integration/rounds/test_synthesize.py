"""Rounds through the command line: killed at random moments, they end with the same bits.

The agents are toys, except where a test says that it needs tiny models of the real architectures.
"""

import json
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed; tests share their runs

from training.mora_process import MoraTrain  # noqa: E402

from benchmarks.rounds import command, fingerprint, interrupted, left_alone  # noqa: E402

pytestmark = pytest.mark.timeout(600)
TINY, TOYS = "configs/tiny-rounds.yaml", "tests/toy_agents/pair.yaml"
ONE_ROUND = ("--set", "synthesis.num_rounds=1")


def mora(*words: str) -> tuple[int, str]:
    whole = [str(ROOT / "mora"), *words]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one uninterrupted round."""
    run = tmp_path_factory.mktemp("rounds") / "whole"
    left_alone(run, *ONE_ROUND, config=TOYS)
    return run


def test_every_sample_records_its_origin(whole: Path) -> None:
    check_origins(whole)


def check_origins(run: Path) -> None:
    """Assert that every sample of the first round tells which model, judges and rule it comes from."""
    manifest = json.loads((run / "rounds" / "01" / "manifest.json").read_text())
    assert set(manifest["model"]["weights_sha256"]) == {"image", "video"}
    assert manifest["samples"]
    for sample in manifest["samples"]:
        assert set(sample["sha256"]) == {"frames.mkv", "first-frame.png", "noise.safetensors"}
        assert [len(verdict["raw"]) for verdict in sample["verdicts"]] == [1, 1]
        assert sample["decision"]["decided_by"] in {"judges", "rule"}
    assert (run / "rounds" / "01" / "report.html").stat().st_size > 3000
    assert json.loads((run / "rounds" / "01" / "trained.json").read_text())["step"] == 2


def test_rounds_killed_among_candidates_and_in_training_equal_uninterrupted_ones_to_the_bit(
    whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for line, resume in (("candidate 2/4", ()), ("step 1/2", ("--resume",))):
        job = MoraTrain(run, command=command(run, *ONE_ROUND, *resume, config=TOYS)[1:])
        job.read_until(lambda said, line=line: said.startswith(line))
        job.process.kill()
        assert job.finish()[0] == -signal.SIGKILL
    left_alone(run, *ONE_ROUND, "--resume", config=TOYS)
    assert differing(whole, run) == []


@pytest.mark.long  # what surrounds the models is killed at two moments in every run of the tests
@pytest.mark.timeout(1500)
def test_rounds_of_real_models_killed_at_random_equal_uninterrupted_ones_to_the_bit(tmp_path: Path) -> None:
    whole_s = left_alone(tmp_path / "whole", *ONE_ROUND)
    moments = interrupted(tmp_path / "run", 3, whole_s, random.Random(7), *ONE_ROUND)
    assert len(moments) == 3
    assert differing(tmp_path / "whole", tmp_path / "run") == []


def test_a_finished_run_repeats_no_work_and_a_changed_one_is_refused(whole: Path) -> None:
    before = fingerprint(whole)
    code, said = mora(*command(whole, *ONE_ROUND, "--resume", config=TOYS)[1:])
    assert code == 0, said
    assert "candidate 1/" not in said
    assert fingerprint(whole) == before
    code, said = mora(*command(whole, *ONE_ROUND, "--resume", "--set", "seed=1", config=TOYS)[1:])
    assert code == 1
    assert "another configuration (seed)" in said


def events(run: Path, role: str) -> list[str]:
    """The log of a server, over all its generations and commands."""
    logs = sorted((run / "logs").glob(f"{role}.*.jsonl"))
    return [json.loads(line)["event"] for path in logs for line in path.read_text().splitlines()]


def num_starts(run: Path) -> dict[str, int]:
    """How often each server has loaded its models."""
    roles = ("image.0", "video.0")
    return {role: sum(event.startswith("serving ") for event in events(run, role)) for role in roles}


def differing(expected: Path, found: Path) -> list[str]:
    """Files that differ between two runs."""
    first, second = fingerprint(expected), fingerprint(found)
    return [path for path in sorted({*first, *second}) if first.get(path) != second.get(path)]


@pytest.mark.timeout(1500)  # three commands
def test_two_rounds_start_each_server_once_and_equal_two_commands(tmp_path: Path) -> None:
    """The moving average makes the candidates, so each round has to restore the training weights."""
    average = ("--set", "synthesis.weights=average")
    at_once, in_two = tmp_path / "at-once", tmp_path / "in-two"
    left_alone(at_once, *average, config=TOYS)
    assert num_starts(at_once) == {"image.0": 1, "video.0": 1}
    left_alone(in_two, *average, *ONE_ROUND, config=TOYS)
    left_alone(in_two, *average, "--resume", config=TOYS)
    assert num_starts(in_two) == {"image.0": 2, "video.0": 2}
    assert differing(at_once, in_two) == []


def test_two_rounds_of_real_models_start_each_server_once_and_load_text_encoders_once_a_round(tmp_path: Path) -> None:
    run = tmp_path / "run"
    left_alone(run, "--set", "synthesis.weights=average")
    assert num_starts(run) == {"image.0": 1, "video.0": 1}
    num_loads = sum(event.startswith("loading text encoders") for event in events(run, "image.0"))
    assert num_loads == 3, "for the held-out prompts and for those of each round; not for training"
    check_origins(run)


def test_a_server_that_dies_while_candidates_are_made_is_started_again(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = MoraTrain(run, command=command(run, *ONE_ROUND, config=TOYS)[1:])
    job.read_until(lambda line: line.startswith("candidate 1/4"))
    job.child("video.0").kill()
    code, said = job.finish()
    assert code == 0, said
    assert "video.0 was killed by SIGKILL, while the job was running" in said
    assert "continuing as generation 2 (1 of 3 restarts in 600 s)" in said
    assert num_starts(run) == {"image.0": 2, "video.0": 2}, "without a checkpoint all start again"
    assert differing(whole, run) == []


def test_ctrl_c_while_candidates_are_made_or_judged_ends_everything(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a judge that never answers
        endpoint = f"{{base_url: 'http://127.0.0.1:{silent.getsockname()[1]}/v1', model: silent, timeout_s: 300}}"
        judges = f"synthesis.judges=[{{kind: endpoint, endpoint: {endpoint}}}, {{kind: measured}}]"
        words = command(run, *ONE_ROUND, "--set", judges, config=TOYS)[1:]
        job = MoraTrain(run, command=words)
        job.read_until(lambda line: line.startswith("candidate 1/4"))
        job.process.send_signal(signal.SIGINT)
        code, said = job.finish()
        assert code == 130, said
        assert f"stopped; continue with --resume --run {run}" in said
        assert job.nothing_left()
        silent.settimeout(250.0)
        job = MoraTrain(run, command=[*words, "--resume"])
        asked, _ = silent.accept()
        with asked:
            assert len(job.children()) == 2, "the servers wait for what follows the judges"
            job.process.send_signal(signal.SIGINT)
            code, said = job.finish()
    assert code == 130, said
    assert job.nothing_left()
