"""What 100,000 tensors leave behind in both processes: nothing."""

import os
from pathlib import Path

import pytest
import torch
from mora_runtime import Client
from mora_runtime.process.role_process import RoleProcess

pytestmark = pytest.mark.timeout(300)


def resident_nbytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_100_000_tensors_sent_and_released_leave_descriptors_and_memory_as_they_were(
    client: Client, servers: dict[str, RoleProcess]
) -> None:
    pids = (os.getpid(), servers["echo.0"].process.pid)
    tensors = [torch.ones(size) for size in (1, 2_000, 3_000, 5_000)] * 8  # in the frame, and in slots

    def send(num_tensors: int) -> None:
        for _ in range(0, num_tensors, 2 * len(tensors)):  # there and back
            client.call("echo", "add_one_to_each", {"xs": tensors}, deadline_s=30)
        client.flush()

    send(8_000)  # pools grow to what they need
    descriptors = [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]
    before = [resident_nbytes(pid) for pid in pids]
    send(100_000)
    assert [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids] == descriptors
    for earlier, later in zip(before, [resident_nbytes(pid) for pid in pids], strict=True):
        assert later < earlier * 1.02
    assert client.ping(5).num_slots <= 1
