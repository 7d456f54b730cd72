"""A checkpoint that a process uses, or that a person keeps, is not removed; all others are, and whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mora_runtime.errors import CheckpointError
from mora_trainer.checkpoint.checkpointer import Checkpointer
from mora_trainer.checkpoint.manifest import MANIFEST
from mora_trainer.checkpoint.pin import CheckpointPin, is_kept, is_pinned, keep, release, remove_unpinned
from mora_training.training_settings import GroupSettings

FOLDER = "step-00000002"
USER = """
import sys
from pathlib import Path
from mora_trainer.checkpoint.pin import CheckpointPin
pin = CheckpointPin(Path(sys.argv[1]), sys.argv[2])
print("pinned", flush=True)
sys.stdin.read()
"""


def write_checkpoint(checkpoints: Path, step: int) -> str:
    folder = checkpoints / f"step-{step:08d}"
    (folder / "image" / "weights").mkdir(parents=True)
    (folder / "image" / "weights" / "w").write_text(f"weights of step {step}")
    (folder / MANIFEST).write_text("{}")
    return folder.name


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path, 2)
    return tmp_path


def test_a_checkpoint_without_pin_or_mark_is_removed(checkpoints: Path) -> None:
    assert not is_pinned(checkpoints, FOLDER)
    assert remove_unpinned(checkpoints, FOLDER)
    assert list(checkpoints.iterdir()) == []


def test_a_checkpoint_with_several_users_stays_until_the_last_one_has_finished(checkpoints: Path) -> None:
    with CheckpointPin(checkpoints, FOLDER):
        with CheckpointPin(checkpoints, FOLDER):
            assert is_pinned(checkpoints, FOLDER)
        assert not remove_unpinned(checkpoints, FOLDER)
        assert (checkpoints / FOLDER / "image" / "weights" / "w").read_text() == "weights of step 2"
    assert not is_pinned(checkpoints, FOLDER)
    assert remove_unpinned(checkpoints, FOLDER)


def test_a_pin_ends_with_the_object(checkpoints: Path) -> None:
    pin = CheckpointPin(checkpoints, FOLDER)
    assert is_pinned(checkpoints, FOLDER)
    del pin
    assert not is_pinned(checkpoints, FOLDER)


def test_a_pin_ends_with_its_process_however_that_ends(checkpoints: Path) -> None:
    command = [sys.executable, "-c", USER, str(checkpoints), FOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "pinned\n"
        assert is_pinned(checkpoints, FOLDER)
        assert not remove_unpinned(checkpoints, FOLDER)
        user.kill()
        user.wait(60)
    assert remove_unpinned(checkpoints, FOLDER)


def test_a_program_that_the_user_of_a_checkpoint_starts_has_no_pin(checkpoints: Path) -> None:
    with CheckpointPin(checkpoints, FOLDER):
        started = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        assert not is_pinned(checkpoints, FOLDER)
    finally:
        started.communicate(timeout=60)


def test_a_kept_checkpoint_stays_until_it_is_released(checkpoints: Path) -> None:
    keep(checkpoints, FOLDER)
    keep(checkpoints, FOLDER)
    assert is_kept(checkpoints, FOLDER)
    assert not remove_unpinned(checkpoints, FOLDER)
    release(checkpoints, FOLDER)
    assert not is_kept(checkpoints, FOLDER)
    with pytest.raises(CheckpointError, match="is not marked as kept"):
        release(checkpoints, FOLDER)
    assert remove_unpinned(checkpoints, FOLDER)


def test_a_checkpoint_that_is_not_there_can_be_neither_pinned_nor_kept(checkpoints: Path) -> None:
    for use in (CheckpointPin, keep):
        with pytest.raises(CheckpointError, match=r"step-00000003/manifest\.json: cannot be read"):
            use(checkpoints, "step-00000003")
    assert not is_kept(checkpoints, "step-00000003")


def test_a_checkpoint_that_is_removed_while_a_pin_is_taken_is_not_used(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mora_trainer.checkpoint import pin

    def removed_first(descriptor: int, *arguments: object, **more: object) -> None:
        assert remove_unpinned(checkpoints, FOLDER)

    monkeypatch.setattr(pin, "lock_file", removed_first)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CheckpointError, match="training has just removed it"):
        CheckpointPin(checkpoints, FOLDER)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_death_during_a_removal_leaves_nothing_with_the_name_of_a_checkpoint(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mora_trainer.checkpoint import pin

    def die(path: Path, **options: object) -> None:
        if path.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(pin.shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        remove_unpinned(checkpoints, FOLDER)
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000002.tmp"], "the next commit removes it"


def test_a_folder_without_manifest_is_removed(checkpoints: Path) -> None:
    (checkpoints / FOLDER / MANIFEST).unlink()
    assert remove_unpinned(checkpoints, FOLDER)


def test_training_removes_a_pinned_checkpoint_once_it_is_free_and_never_a_kept_one(
    tmp_path: Path, group: GroupSettings
) -> None:
    checkpointer = Checkpointer(tmp_path, {}, None, lock_hashes={}, keep=1, deadline_s=30.0)

    def commit(step: int) -> list[int]:
        checkpointer.begin(step)
        assert checkpointer.finish(wait=True)
        return sorted(int(path.name.removeprefix("step-")) for path in tmp_path.glob("step-????????"))

    assert commit(1) == [1]
    assert commit(2) == [2]
    keep(tmp_path, "step-00000002")
    assert commit(3) == [2, 3]
    with CheckpointPin(tmp_path, "step-00000003"):
        assert commit(4) == [2, 3, 4]
    assert commit(5) == [2, 5]
    release(tmp_path, "step-00000002")
    assert commit(6) == [6]
