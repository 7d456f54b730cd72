"""The launcher asks libcuda about GPUs. The tests replace libcuda by a small library with the same functions."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest
from mora_launch.jobs import cuda_driver
from mora_launch.jobs.cuda_driver import CudaDriver, Gpu, ask_driver, cuda_major, read_driver

H100 = Gpu("NVIDIA H100 80GB HBM3", 85_520_809_984, "0000:1B:00.0")
LOCKED = {"torch": "2.13.0", "nvidia-cuda-runtime": "13.0.96"}


class FakeLibcuda:
    """The functions of libcuda that the launcher calls, for a node with these GPUs."""

    def __init__(self, gpus: list[Gpu], *, version: int = 13000, init: int = 0) -> None:
        self._gpus = gpus
        self._version = version
        self._init = init

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._init

    def cuGetErrorString(self, code: int, text: Any) -> int:  # noqa: N802
        text._obj.value = {803: b"system has unsupported display driver / cuda driver combination"}.get(code, b"other")
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self._version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self._gpus)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = 40 + index  # a handle, not the number
        return 0

    def cuDeviceTotalMem_v2(self, nbytes: Any, device: int) -> int:  # noqa: N802
        nbytes._obj.value = self._gpus[device - 40].nbytes
        return 0

    def cuDeviceGetName(self, buffer: ctypes.Array[ctypes.c_char], length: int, device: int) -> int:  # noqa: N802
        buffer.value = self._gpus[device - 40].name.encode()
        return 0

    def cuDeviceGetPCIBusId(self, buffer: ctypes.Array[ctypes.c_char], length: int, device: int) -> int:  # noqa: N802
        buffer.value = self._gpus[device - 40].pci_bus_id.encode()
        return 0


def test_the_driver_tells_its_version_and_every_visible_gpu() -> None:
    other = Gpu("NVIDIA H100 80GB HBM3", 85_520_809_984, "0000:C1:00.0")
    assert read_driver(FakeLibcuda([H100, other])) == CudaDriver(13000, (H100, other))


def test_a_driver_that_cannot_start_says_why() -> None:
    found = read_driver(FakeLibcuda([H100], init=803))
    assert found.gpus == ()
    assert "cuInit: system has unsupported display driver" in found.problem


@pytest.mark.parametrize("library", [FakeLibcuda([], init=100), FakeLibcuda([])])
def test_no_gpu_is_an_answer(library: FakeLibcuda) -> None:
    assert read_driver(library) == CudaDriver(13000, (), "the driver shows no GPU")


def answer_of(script: str, monkeypatch: pytest.MonkeyPatch) -> CudaDriver:
    """The answer when the process that asks the driver runs `script` instead."""
    real = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return real([sys.executable, "-c", script], **options)

    monkeypatch.setattr(cuda_driver.subprocess, "run", run)
    return ask_driver()


def test_the_answer_crosses_the_process_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps(asdict(CudaDriver(12040, (H100,))))
    assert answer_of(f"print({content!r})", monkeypatch) == CudaDriver(12040, (H100,))


def test_gpus_are_counted_in_the_order_in_which_roles_number_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    script = """if True:
        import json, os
        print(json.dumps({"version": 0, "gpus": [], "problem": os.environ["CUDA_DEVICE_ORDER"]}))"""
    assert answer_of(script, monkeypatch).problem == "PCI_BUS_ID"


@pytest.mark.parametrize("script", ["import os; os.abort()", "print('{}')", "print(1)", ""])
def test_a_driver_that_ends_the_asking_process_does_not_end_the_launcher(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer_of(script, monkeypatch)
    assert found.gpus == ()
    assert found.problem.startswith("the NVIDIA driver cannot be asked")


def test_a_driver_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_DEADLINE_S", 0.2)
    assert "no answer" in answer_of("import threading; threading.Event().wait()", monkeypatch).problem


@pytest.mark.parametrize(
    ("distributions", "major"),
    [
        (LOCKED, 13),
        ({"torch": "2.4.1+cu121"}, 12),
        ({"torch": "2.4.1", "nvidia-cuda-runtime-cu12": "12.1.105"}, 12),
        ({"torch": "2.1.0+cu118"}, 11),
        ({"torch": "2.13.0+cpu"}, None),
        ({}, None),
    ],
)
def test_the_cuda_of_an_environment_follows_from_its_packages(distributions: dict[str, str], major: int | None) -> None:
    assert cuda_major(distributions) == major


def test_a_gpu_that_torch_can_use_has_no_problem() -> None:
    assert CudaDriver(13000, (H100,)).problem_of("cuda:0", LOCKED) is None
    assert CudaDriver(13000, (H100,)).problem_of("cuda:0", {"torch": "2.4.1+cu121"}) is None


def test_a_driver_older_than_the_cuda_of_torch_is_a_problem() -> None:
    problem = CudaDriver(12040, (H100,)).problem_of("cuda:0", LOCKED)
    assert problem is not None
    assert "torch 2.13.0 for CUDA 13, but the driver supports at most CUDA 12.4" in problem
    assert "580 or later" in problem


def test_a_torch_without_cuda_is_a_problem() -> None:
    problem = CudaDriver(13000, (H100,)).problem_of("cuda:0", {**LOCKED, "torch": "2.13.0+cpu"})
    assert problem is not None
    assert "built without CUDA" in problem


def test_devices_that_the_shell_hides_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f6e2c1a")
    problem = CudaDriver(13000, (H100,)).problem_of("cuda:1", LOCKED)
    assert problem is not None
    assert problem.startswith("this machine has 1 CUDA device(s) with CUDA_VISIBLE_DEVICES=GPU-8f6e2c1a;")
