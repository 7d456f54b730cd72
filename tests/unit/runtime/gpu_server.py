"""A server that believes to have the GPU `cuda:1`, for `test_server_device.py`. Functions that need one are replaced.

python gpu_server.py --settings FILE --supervisor-fd N
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mora_runtime import Agent, ServerSettings, remote, serve

current: list[Any] = []  # the device that `torch.cuda.set_device` was last called with


class Device(Agent):
    """Tells what the server did with its GPU."""

    def __init__(self) -> None:
        self._at_load = [str(device) for device in current]

    @remote
    def at_load(self) -> list[str]:
        """The devices that were made current before the agents were loaded."""
        return self._at_load


def build(settings: ServerSettings) -> Mapping[str, Agent]:
    """Load the agents."""
    return {"device": Device()}


if __name__ == "__main__":
    torch.cuda.set_device = current.append
    raise SystemExit(serve(ServerSettings.from_argv(), build))
