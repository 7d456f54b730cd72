"""Tensors of a call are moved to the server's device, except arguments that a method declares for the host.

The meta device replaces a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_runtime import Agent, RunDirectory, Session, remote
from mora_runtime.autograd.graph_table import GraphTable
from mora_runtime.rpc.activity import Activity
from mora_runtime.rpc.agent import methods_of
from mora_runtime.rpc.execution import Caller, Executor
from mora_runtime.rpc.server_device import ServerDevice
from mora_runtime.tensors.marshalling import to_wire
from mora_runtime.wire.messages import Call

META = torch.device("meta")


class Receiver(Agent):
    """Remembers the devices of what it was given."""

    def __init__(self) -> None:
        self.devices: dict[str, torch.device] = {}

    @remote(host_arguments=("pixels", "clips"))
    def store(self, pixels: torch.Tensor, clips: list[torch.Tensor], latents: torch.Tensor) -> dict[str, Any]:
        self.devices = {"pixels": pixels.device, "clips": clips[0].device, "latents": latents.device}
        return {}

    @remote(differentiable=True, host_arguments=["pixels"])
    def loss(self, pixels: torch.Tensor, latents: torch.Tensor) -> dict[str, Any]:
        self.devices = {"pixels": pixels.device, "latents": latents.device}
        return {}


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session.open(RunDirectory.create(tmp_path / "run"), "agent.0") as session:
        yield session


def _run(session: Session, method: str, **arguments: Any) -> dict[str, torch.device]:
    receiver = Receiver()
    device = ServerDevice(META, ends_when_out_of_memory=False)
    executor = Executor(session.store, {"agent": receiver}, device, GraphTable(), Activity(), recompute=False)
    caller = Caller("client", b"client")
    wired = to_wire(session.store, caller, arguments)
    grad = [] if method == "loss" else None
    executor.run(caller, Call(1, "agent", method, wired, grad, None, False, []))
    return receiver.devices


def test_declared_arguments_stay_on_the_host(session: Session) -> None:
    pixels, latents = torch.zeros(2, dtype=torch.uint8), torch.zeros(2)
    found = _run(session, "store", pixels=pixels, clips=[pixels], latents=latents)
    assert found == {"pixels": torch.device("cpu"), "clips": torch.device("cpu"), "latents": META}
    assert _run(session, "loss", pixels=pixels, latents=latents) == {"pixels": torch.device("cpu"), "latents": META}


def test_the_table_tells_which_arguments_stay_on_the_host() -> None:
    table = methods_of(Receiver)
    assert table["store"].on_host == {"pixels", "clips"}
    assert table["loss"].differentiable
    assert table["loss"].on_host == {"pixels"}


def test_a_host_argument_that_the_method_lacks_is_refused() -> None:
    class Wrong(Agent):
        @remote(host_arguments=("pixel",))
        def store(self, pixels: torch.Tensor) -> None: ...

    with pytest.raises(TypeError, match=r"store: host_arguments names \['pixel'\]; it has \['pixels'\]"):
        methods_of(Wrong)
