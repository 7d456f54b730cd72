"""RoundRunner through the command line: killed at random moments they give what they would have given, to the bit."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed; tests share their runs

from benchmarks.rounds import command, fingerprint, interrupted, left_alone  # noqa: E402

pytestmark = pytest.mark.timeout(600)
ONE_ROUND = ("--set", "synthesis.num_rounds=1")


def mora(*words: str) -> tuple[int, str]:
    whole = [str(ROOT / "mora"), *words]
    done = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run of one round that nobody interrupted, and how many seconds it took."""
    run = tmp_path_factory.mktemp("rounds") / "whole"
    return run, left_alone(run, *ONE_ROUND)


def test_every_sample_says_where_all_of_it_came_from(whole: tuple[Path, float]) -> None:
    run, _ = whole
    manifest = json.loads((run / "rounds" / "01" / "manifest.json").read_text())
    assert set(manifest["model"]["weights_sha256"]) == {"image", "video"}
    assert manifest["samples"]
    for sample in manifest["samples"]:
        assert set(sample["sha256"]) == {"frames.mkv", "first-frame.png", "noise.safetensors"}
        assert [len(verdict["raw"]) for verdict in sample["verdicts"]] == [1, 1]
        assert sample["decision"]["decided_by"] in {"judges", "rule"}
    assert (run / "rounds" / "01" / "report.html").stat().st_size > 3000
    assert json.loads((run / "rounds" / "01" / "trained.json").read_text())["step"] == 2


def test_killed_and_resumed_is_uninterrupted_to_the_bit(whole: tuple[Path, float], tmp_path: Path) -> None:
    run, whole_s = whole
    moments = interrupted(tmp_path / "run", 2, whole_s, random.Random(7), *ONE_ROUND)
    assert len(moments) == 2
    expected, found = fingerprint(run), fingerprint(tmp_path / "run")
    assert [path for path in {*expected, *found} if expected.get(path) != found.get(path)] == []


def test_a_finished_run_makes_nothing_twice_and_a_changed_one_is_refused(whole: tuple[Path, float]) -> None:
    run, _ = whole
    before = fingerprint(run)
    code, said = mora(*command(run, *ONE_ROUND, "--resume")[1:])
    assert code == 0, said
    assert "candidate 1/" not in said
    assert fingerprint(run) == before
    code, said = mora(*command(run, *ONE_ROUND, "--resume", "--set", "seed=1")[1:])
    assert code == 1
    assert "another configuration (seed)" in said
