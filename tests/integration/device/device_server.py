"""A server whose agents tell what becomes of device memory: `python device_server.py --settings FILE ...`.

If the variable FAKE_ROUTE is set, the server uses a fake device in place of CUDA: its device is the CPU, and other
processes open its memory and events by the bytes of their handles.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from mora_runtime import Agent, ServerSettings, remote, serve
from mora_runtime.device import ipc_device

sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "runtime"))

FAKE: Any = None
if "FAKE_ROUTE" in os.environ:
    from fake_device import FakeDevice

    FAKE = FakeDevice(os.environ.get("FAKE_UUID", "fake device 0000").encode(), os.environ["FAKE_ROUTE"])  # type: ignore[arg-type]
    ipc_device.open_device = lambda device: FAKE

NUMEL = 8192


class Stage(Agent):
    """One of two stages, which multiply by their weight."""

    def __init__(self, device: str) -> None:
        torch.manual_seed(3)
        self._device = device
        self._weight = torch.nn.Parameter(torch.rand(NUMEL, device=device))
        self._kept: list[torch.Tensor] = []

    @remote(differentiable=True)
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        """The product."""
        return {"y": torch.sin(self._weight * x)}

    @remote(differentiable=True)
    def loss(self, y: torch.Tensor) -> dict[str, Any]:
        """The loss."""
        return {"loss": (self._weight * y).square().mean()}

    @remote
    def double(self, x: torch.Tensor) -> dict[str, Any]:
        """Twice the tensor."""
        return {"y": x * 2}

    @remote
    def keep(self, y: torch.Tensor) -> float:
        """Keep a view of the tensor; return its sum."""
        self._kept.append(y)
        return float(y.double().sum())

    @remote
    def sum_kept(self) -> list[float]:
        """Sums of the kept views."""
        return [float(y.double().sum()) for y in self._kept]

    @remote
    def drop(self) -> None:
        """Drop the kept views."""
        self._kept.clear()

    @remote
    def gradient(self) -> torch.Tensor:
        """The gradient of the weight, which is then cleared."""
        found, self._weight.grad = self._weight.grad, None
        assert found is not None
        return found

    @remote
    def hold(self, seconds: float) -> None:
        """Stop the fake's stream, for so long."""
        stream = FAKE.stream()
        FAKE.hold(stream)
        threading.Timer(seconds, FAKE.let_run, (stream,)).start()

    @remote
    def counts(self) -> dict[str, Any]:
        """The slots of this process's pool that are in use, and the fake's live objects."""
        from mora_runtime.rpc import session

        opened = session._current
        assert opened is not None
        plane = opened.store.plane
        found = {"num_live": 0 if plane is None else plane.pool.num_live}
        if FAKE is not None:
            found |= {name: getattr(FAKE, name) for name in ("num_opened", "num_events", "num_copied")}
        return found


if __name__ == "__main__":
    raise SystemExit(serve(ServerSettings.from_argv(), lambda settings: {"stage": Stage(settings.device)}))
