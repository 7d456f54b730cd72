"""Joining a group prepares DeepSpeed for the role's device. Only the last step, which needs the device, is replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mora_training.process_group import join_group
from mora_training.training_settings import GroupSettings

GROUP = GroupSettings(rank=0, world_size=2, rendezvous="file:///nowhere/group")


def _refuse_to_probe() -> dict[str, bool]:
    raise AssertionError("joining a group ran compilers to find out which operators could be built")


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What DeepSpeed was asked for, once a test has called `join_group`."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "to be replaced")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    vars(deepspeed.ops).pop("__compatible_ops__", None)  # of a test before
    asked: dict[str, Any] = {}

    def init_distributed(backend: str, **options: Any) -> None:
        asked.update(options, backend=backend)

    monkeypatch.setattr(deepspeed, "init_distributed", init_distributed)
    monkeypatch.setattr(deepspeed.ops, "_probe_compatible_ops", _refuse_to_probe)
    return asked


def test_a_variable_of_the_shell_does_not_put_the_engine_of_a_gpu_on_the_cpu(joined: dict[str, Any]) -> None:
    join_group(GROUP, torch.device("cuda:1"))
    assert joined["backend"] == "nccl"
    assert os.environ["LOCAL_RANK"] == "1"
    assert os.environ["DS_ACCELERATOR"] == "cuda"


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_no_operator_is_probed_and_none_is_compiled(joined: dict[str, Any], device: str) -> None:
    import deepspeed.ops

    join_group(GROUP, torch.device(device))
    assert not any(deepspeed.ops.__compatible_ops__.values())


def test_devices_may_be_named_by_uuid_where_nvml_is_installed(
    joined: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspeed.accelerator import cuda_accelerator

    nvml = SimpleNamespace(nvmlDeviceGetHandleByIndex=lambda index: index)
    monkeypatch.setattr(cuda_accelerator, "pynvml", nvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f6e2c1a-93d2-4f0b-8a51-1d2c3b4a5968")
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: 1 << 30)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=80 << 30), raising=False
    )
    join_group(GROUP, torch.device("cuda:0"))
    accelerator = object.__new__(cuda_accelerator.CUDA_Accelerator)
    assert accelerator.available_memory(0) == 79 << 30


def test_members_have_as_long_to_meet_as_models_take_to_load(joined: dict[str, Any]) -> None:
    join_group(GROUP.model_copy(update={"timeout_s": 120.0, "join_timeout_s": 960.0}), torch.device("cuda:0"))
    assert joined["timeout"].total_seconds() == 960.0


LONELY = """
import datetime, sys, time
import torch, torch.distributed as dist
from mora_training.process_group import limit_waits, make_patient_group
rank, path = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=60))
own = dist.new_group()
limit_waits(0.5)
patient = make_patient_group(60)
if rank == 1:
    sys.stdin.readline()
else:
    for group in (None, own):
        started_s = time.monotonic()
        try:
            dist.all_reduce(torch.ones(1), group=group)
        except RuntimeError:
            print("gave up", time.monotonic() - started_s < 30, flush=True)
    print("waits", flush=True)
dist.barrier(group=patient)
print("met", flush=True)
"""


def test_collectives_give_up_after_the_groups_timeout_and_a_patient_group_waits_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LONELY]
    with (
        subprocess.Popen([*command, "0", str(tmp_path / "group")], stdout=subprocess.PIPE, text=True) as waiting,
        subprocess.Popen(
            [*command, "1", str(tmp_path / "group")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as late,
    ):
        assert waiting.stdout is not None
        assert [waiting.stdout.readline() for _ in range(3)] == ["gave up True\n", "gave up True\n", "waits\n"]
        assert late.communicate("come\n", timeout=60)[0] == "met\n"
        assert waiting.communicate(timeout=60)[0] == "met\n"
