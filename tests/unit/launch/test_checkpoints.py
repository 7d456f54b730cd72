"""Listing and verifying checkpoints, and exporting weights."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mora_launch.cli import cli
from mora_runtime.errors import CheckpointError
from mora_runtime.files.durable_files import describe, write_text

FILES = ("image/weights/config.json", "image/weights/w.safetensors", "image/ema/w.safetensors", "image/optimizer.bin")


def make_checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f"step-{step:08d}"
    for name in FILES:
        write_text(folder / name, f"{name} of step {step}")
    manifest = {
        "step": step,
        "folder": folder.name,
        "num_replicas": 1,
        "lock_hashes": {},
        "files": [asdict(describe(folder / name, folder)) for name in FILES],
    }
    write_text(folder / "manifest.json", json.dumps(manifest))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 4 and 8, the latter committed, and an unfinished one."""
    for step in (4, 8):
        make_checkpoint(tmp_path, step)
    write_text(tmp_path / "checkpoints" / "step-00000012.tmp" / "image" / "weights" / "w.safetensors", "half")
    write_text(tmp_path / "checkpoints" / "COMMITTED", json.dumps({"step": 8, "folder": "step-00000008"}))
    return tmp_path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["checkpoint", *map(str, arguments)])


def test_the_list_shows_where_a_resume_starts(run: Path) -> None:
    lines = call("list", run).output.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["4", "step-00000004"], ["8", "step-00000008"]]
    assert "committed" not in lines[1]
    assert "committed: a resume starts here" in lines[2]


def test_verifying_names_the_file_that_changed(run: Path) -> None:
    assert "step-00000008: 4 files match their manifest" in call("verify", run).output
    damaged = run / "checkpoints" / "step-00000008" / FILES[1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    found = call("verify", run)
    assert isinstance(found.exception, CheckpointError)
    assert FILES[1] in str(found.exception)
    assert call("verify", run, "--step", 4).exit_code == 0


def test_exporting_copies_verified_weights_and_overwrites_none(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert call("export", run, "--step", 4, "-o", target).output.strip() == str(target / "image")
    assert (target / "image" / "w.safetensors").read_text() == "image/weights/w.safetensors of step 4"
    assert sorted(path.name for path in (target / "image").iterdir()) == ["config.json", "w.safetensors"]
    assert json.loads((target / "exported.json").read_text())["step"] == 4
    assert "already exists" in str(call("export", run, "-o", target).exception)
    call("export", run, "-o", tmp_path / "average", "--average")
    assert (tmp_path / "average" / "image" / "w.safetensors").read_text() == "image/ema/w.safetensors of step 8"


def test_a_missing_checkpoint_agent_or_run_is_named(run: Path, tmp_path: Path) -> None:
    assert "no checkpoint of step 5; existing steps: 4, 8" in str(call("verify", run, "--step", 5).exception)
    (tmp_path / "empty").mkdir()
    assert "expected the directory of a run" in str(call("list", tmp_path / "empty").exception)
