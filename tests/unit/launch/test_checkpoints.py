"""Listing and verifying checkpoints, and exporting weights."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mora_launch.checkpoints.run_checkpoints import Checkpoints
from mora_launch.cli import cli
from mora_runtime.errors import CheckpointError
from mora_runtime.files.durable_files import describe, replace_text, write_text
from mora_trainer.checkpoint.manifest import CheckpointInfo
from mora_trainer.checkpoint.pin import CheckpointPin, is_pinned, remove_unpinned

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


def test_a_checkpoint_is_kept_and_released_by_name_and_the_list_shows_it(run: Path) -> None:
    assert call("keep", f"{run}:4").output.strip() == "step-00000004: kept"
    assert call("keep", run).output.strip() == "step-00000008: kept"
    with CheckpointPin(run / "checkpoints", "step-00000004"):
        lines = call("list", run).output.splitlines()
    assert lines[1].rstrip().endswith(" kept, in use")
    assert lines[2].rstrip().endswith("committed: a resume starts here, kept")
    assert call("keep", "--release", f"{run}:4").output.strip() == "step-00000004: released, training may remove it"
    assert "is not marked as kept" in str(call("keep", "--release", f"{run}:4").exception)
    assert "no checkpoint of step 5; existing steps: 4, 8" in str(call("keep", f"{run}:5").exception)
    assert "expected RUN or RUN:STEP" in str(call("keep", f"{run}:last").exception)


def test_a_checkpoint_is_pinned_while_it_is_verified_and_exported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def check_files(info: CheckpointInfo, root: Path) -> None:
        seen.append(is_pinned(run / "checkpoints", info.folder))

    monkeypatch.setattr(CheckpointInfo, "check_files", check_files)
    assert call("verify", run, "--step", 4).exit_code == 0
    assert call("export", run, "--step", 4, "-o", tmp_path / "out").exit_code == 0
    assert seen == [True, True]
    assert not is_pinned(run / "checkpoints", "step-00000004"), "neither command leaves its pin behind"


def test_a_checkpoint_that_training_removes_meanwhile_is_replaced_by_the_newer_one(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints.of_run(run)
    assert checkpoints.find(None).step == 8
    pinned = CheckpointPin.__init__

    def commit_first(pin: CheckpointPin, folder: Path, name: str) -> None:
        if name == "step-00000008":
            make_checkpoint(run, 12)
            replace_text(run / "checkpoints" / "COMMITTED", json.dumps({"step": 12, "folder": "step-00000012"}))
            assert remove_unpinned(run / "checkpoints", name)
        pinned(pin, folder, name)

    monkeypatch.setattr(CheckpointPin, "__init__", commit_first)
    info, pin = checkpoints.pinned(None)
    with pin:
        assert info.step == 12
    with pytest.raises(CheckpointError, match="no checkpoint of step 8; existing steps: 4, 12"):
        checkpoints.pinned(8)
