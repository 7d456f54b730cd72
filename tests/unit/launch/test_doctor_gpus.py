"""`mora doctor` looks at GPUs, their driver, /dev/shm and the room for a checkpoint. No test here needs a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from mora_launch.config.train_config import load_config
from mora_launch.environments.interpreter import Interpreter
from mora_launch.environments.venvs import ROOT
from mora_launch.jobs import doctor, doctor_roles
from mora_launch.jobs.cuda_driver import CudaDriver, Gpu
from mora_launch.jobs.finding import Finding

H100 = Gpu("NVIDIA H100 80GB HBM3", 80 << 30, "0000:1B:00.0")


def disk(monkeypatch: pytest.MonkeyPatch, *, total_nbytes: int = 1 << 40, free_nbytes: int = 1 << 40) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(total=total_nbytes, free=free_nbytes))


def problems(findings: list[Finding]) -> list[str]:
    return [finding.fix for finding in findings if finding.fix]


def test_the_driver_and_every_gpu_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch)
    findings = list(doctor._gpus(CudaDriver(13000, (H100, H100))))
    assert [finding.what for finding in findings][:3] == [
        "NVIDIA driver: for CUDA 13.0 and older",
        "cuda:0: NVIDIA H100 80GB HBM3, 80.0 GiB, at 0000:1B:00.0",
        "cuda:1: NVIDIA H100 80GB HBM3, 80.0 GiB, at 0000:1B:00.0",
    ]
    assert problems(findings) == []


def test_the_shared_memory_of_a_container_is_too_small_for_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, total_nbytes=64 << 20)
    [fix] = problems(list(doctor._gpus(CudaDriver(13000, (H100,)))))
    assert "--shm-size=1g" in fix


def test_a_machine_without_gpus_has_no_problem_and_a_driver_that_shows_none_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = CudaDriver(0, (), "no NVIDIA driver: libcuda.so.1 is missing")
    monkeypatch.setattr(doctor, "torch_backend", lambda: "cpu")
    assert problems(list(doctor._gpus(driver))) == []
    monkeypatch.setattr(doctor, "torch_backend", lambda: "cuda")
    assert problems(list(doctor._gpus(driver))) == ["see nvidia-smi and CUDA_VISIBLE_DEVICES"]


def test_the_disk_of_a_run_must_have_room_for_one_more_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, free_nbytes=100 << 30)
    info = SimpleNamespace(files=[SimpleNamespace(nbytes=60 << 30), SimpleNamespace(nbytes=50 << 30)])
    monkeypatch.setattr(doctor, "committed", lambda checkpoints: info)
    assert doctor._last_checkpoint_nbytes(tmp_path) == 110 << 30
    assert "free 110.0 GiB in all" in doctor._disk(tmp_path, 110 << 30).fix
    assert doctor._disk(tmp_path).fix == ""


def test_a_role_on_a_gpu_that_its_torch_cannot_use_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    distributions = {"torch": "2.13.0", "nvidia-cuda-runtime": "13.0.96"}
    monkeypatch.setattr(
        doctor_roles,
        "ask_interpreter",
        lambda python: Interpreter(version="3.11.9", prefix="/venv", distributions=distributions),
    )
    config = load_config(ROOT / "configs" / "tiny.yaml", ["agents.image.devices=[cuda:0]"])
    assert problems(list(doctor_roles.role_findings(config, CudaDriver(13000, (H100,))))) == []
    [fix] = problems(list(doctor_roles.role_findings(config, CudaDriver(12040, (H100,)))))
    assert "install a newer driver (580 or later)" in fix
