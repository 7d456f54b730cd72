"""A committed checkpoint always loads, even if writers are killed at any moment or disks fill at any byte.

The real checkpointer and participant write in one process, because a hundred whole jobs would take an hour.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from mora_runtime.errors import CheckpointError
from mora_runtime.files.durable_files import verify
from mora_trainer.checkpoint.checkpointer import Checkpointer
from mora_trainer.checkpoint.commit_record import committed
from mora_training.optimizer_agent import OptimizerAgent
from mora_training.training_settings import GroupSettings, OptimizerAgentSettings, OptimizerSettings, TrainableSettings
from safetensors.torch import load_file

pytestmark = pytest.mark.timeout(300)
WEIGHTS = "image/weights/diffusion_pytorch_model.safetensors"


class Model:
    """An agent whose every weight is the number of the step."""

    def __init__(self) -> None:
        self._module = torch.nn.Linear(64, 64)

    def module(self) -> torch.nn.Module:
        return self._module

    def model_config(self) -> dict[str, Any]:
        return {"_class_name": "Linear"}

    @torch.no_grad()
    def train_to(self, step: int) -> None:
        for parameter in self._module.parameters():
            parameter.fill_(float(step))


class DirectClient:
    """A participant in this process, called like one in a server."""

    def __init__(self, participant: OptimizerAgent) -> None:
        self._participant = participant

    def submit(self, agent: str, method: str, arguments: dict[str, Any], *, deadline_s: float) -> "DirectClient":
        self.values = getattr(self._participant, method)(**arguments)
        return self

    def result(self) -> "DirectClient":
        return self


def write_steps(checkpoints: Path, store: Path, first: int, num_steps: int) -> None:
    """Commit checkpoints one after the other."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    try:
        model = Model()
        settings = OptimizerAgentSettings(
            group=GroupSettings(rank=0, world_size=1, rendezvous=f"file://{store}"),
            optimizer=OptimizerSettings(),
            trainable=TrainableSettings(scope="none"),
        )
        client = DirectClient(OptimizerAgent(model, settings, torch.device("cpu"), checkpoints, "image"))
        checkpointer = Checkpointer(
            checkpoints,
            {"image": client},
            None,
            lock_hashes={},
            keep=2,
            deadline_s=30,  # type: ignore[dict-item]
        )
        for step in range(first, first + num_steps):
            model.train_to(step)
            checkpointer.begin(step)
            checkpointer.finish(wait=True)
    finally:
        dist.destroy_process_group()


def committed_step(checkpoints: Path) -> int:
    """Step of the committed checkpoint, whose files are verified; 0 if there is none yet."""
    info = committed(checkpoints)
    if info is None:
        return 0
    for file in info.files:
        verify(file, checkpoints / info.folder)
    weights = load_file(checkpoints / info.folder / WEIGHTS)
    assert all(bool((value == info.step).all()) for value in weights.values())
    return info.step


@pytest.mark.parametrize("num_kills", [25, pytest.param(100, marks=pytest.mark.long)])
def test_kills_during_writes_damage_no_committed_checkpoint(tmp_path: Path, num_kills: int) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    chance = random.Random(0)
    reached = [0]
    for attempt in range(num_kills):
        child = os.fork()
        if child == 0:
            write_steps(checkpoints, tmp_path / f"store-{attempt}", reached[-1] + 1, num_steps=10_000)
            os._exit(0)
        wait_for_change(checkpoints)
        time.sleep(chance.uniform(0.0, 0.2))  # the moment of death is what is tried out
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reached.append(committed_step(checkpoints))
        assert reached[-1] >= reached[-2]
    assert reached[-1] > num_kills // 5, "checkpoints were being written"
    assert len(list(checkpoints.glob("step-????????"))) <= 3, "old ones are removed"


def wait_for_change(checkpoints: Path) -> None:
    """Wait until the folder is written to again."""
    before = checkpoints.stat().st_mtime_ns
    deadline = time.monotonic() + 30
    while checkpoints.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with an adjustable size, if this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_at_any_page_of_a_checkpoint_leaves_the_previous_one(
    small_disk: Path, tmp_path: Path
) -> None:
    checkpoints = small_disk / "checkpoints"
    checkpoints.mkdir()
    resize(small_disk, 256)
    write_steps(checkpoints, tmp_path / "store", 1, num_steps=1)
    usage = os.statvfs(small_disk)
    num_refused = 0
    for num_pages in range(usage.f_blocks - usage.f_bfree, usage.f_blocks):
        shutil.rmtree(checkpoints / "step-00000002.tmp", ignore_errors=True)
        resize(small_disk, num_pages * usage.f_frsize // 1024)
        with contextlib.suppress(CheckpointError):
            write_steps(checkpoints, tmp_path / f"store-{num_pages}", 2, num_steps=1)
        if committed_step(checkpoints) == 2:
            break
        num_refused += 1
    assert committed_step(checkpoints) == 2, "with room enough it is written"
    assert num_refused >= 4, "each of its files has met the end of the disk"


def resize(disk: Path, size_kb: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size_kb}k", disk], check=True, capture_output=True)
