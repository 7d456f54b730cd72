"""Skips this folder with a reason if device memory cannot be shared; the second process comes from the benchmark."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed; tests share their peer

from mora_runtime.device import cuda_ipc  # noqa: E402

from benchmarks.device_peer import DevicePeer  # noqa: E402


@pytest.fixture(scope="session")
def device() -> cuda_ipc.Device:
    reason = cuda_ipc.why_unavailable()
    if reason is not None:
        pytest.skip(reason)
    return cuda_ipc.Device(0)


@pytest.fixture(scope="module")
def peer(device: cuda_ipc.Device) -> Iterator[DevicePeer]:
    """A process for all tests of a module; tests that kill start their own."""
    with DevicePeer(device.ordinal) as started:
        yield started
