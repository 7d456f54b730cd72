"""A server that believes to have the GPU `cuda:1`, for `test_server_device.py`. Functions that need one are replaced.

python gpu_server.py --settings FILE --supervisor-fd N
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mora_runtime import Agent, ServerSettings, remote, serve

current: list[Any] = []  # the devices that `torch.cuda.set_device` was called with
ILLEGAL_ACCESS = "CUDA error: an illegal memory access was encountered"


class Event:
    """An event of a GPU that needs no time."""

    def __init__(self, enable_timing: bool = False) -> None: ...

    def record(self) -> None:
        """Put it into the stream."""

    def synchronize(self) -> None:
        """Wait for it."""

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds until another one."""
        return 0.0


class Device(Agent):
    """Tells what the server did with its GPU."""

    def __init__(self) -> None:
        self._at_load = [str(device) for device in current]
        self._searches = torch.backends.cudnn.benchmark
        self._has_failed = False
        torch.cuda.synchronize = self._synchronize

    def _synchronize(self, device: object = None) -> None:
        if self._has_failed:
            raise RuntimeError(ILLEGAL_ACCESS)

    @remote
    def at_load(self) -> list[str]:
        """The devices that were made current before the agents were loaded."""
        return self._at_load

    @remote
    def searches(self) -> bool:
        """Whether cuDNN was to search for algorithms before the agents were loaded."""
        return self._searches

    @remote
    def fail(self, kind: str) -> None:
        """Fail as agents do on a GPU."""
        if kind == "kernel":
            self._has_failed = True
            raise RuntimeError(ILLEGAL_ACCESS)
        if kind == "group":
            raise torch.distributed.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp, unhandled system error")
        if kind == "memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        raise ValueError(f"{kind} is not a fault of the device")


def build(settings: ServerSettings) -> Mapping[str, Agent]:
    """Load the agents."""
    return {"device": Device()}


if __name__ == "__main__":
    torch.cuda.set_device = current.append
    torch.cuda.Event = Event
    raise SystemExit(serve(ServerSettings.from_argv(), build))
