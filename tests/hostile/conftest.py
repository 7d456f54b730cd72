"""One real server, an honest client of it, and peers that hold the run's key and do what they like.

Imports nothing but the runtime, so that it runs in every environment.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import zmq
from mora_runtime import Client, Node, RunDirectory
from mora_runtime.frames import decode, encode
from mora_runtime.messages import PROTOCOL_VERSION, Call, Failure, Hello, Message, Result, Welcome, WireTensor
from mora_runtime.side_channel import OfferedSegment, SideChannel
from mora_runtime.sockets import client_socket, make_keys


@dataclass
class Target:
    """The server under attack."""

    run: RunDirectory
    process: subprocess.Popen[bytes]

    def num_descriptors(self) -> int:
        """Open descriptors of the server."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def path(self, kind: str) -> str:
        """One of its sockets."""
        return str(self.run.socket("adder.0", kind))


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with RunDirectory.create(tmp_path_factory.mktemp("hostile") / "run", lock=True) as run:
        make_keys(run)
        settings = {
            "role": "adder.0", "name": "adder", "run_dir": str(run.path), "environment": "any", "lock_hash": "x",
            "agents": {"adder": {"kind": "adder"}}, "arena_budget_nbytes": 64 << 20,
        }  # fmt: skip
        path = run.role_folder("adder.0") / "settings.json"
        path.write_text(json.dumps(settings))
        ours, theirs = socket.socketpair()
        script = str(Path(__file__).parent / "agent_server.py")
        command = [sys.executable, script, "--settings", str(path), "--supervisor-fd", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, "OMP_NUM_THREADS": "1"})
        theirs.close()
        ours.settimeout(120)
        assert json.loads(ours.recv(4096)) == {"event": "ready"}
        yield Target(run, process)
        assert process.poll() is None, "the server has survived every test"
        ours.send(b"stop\n")
        assert process.wait(10) == 0
        ours.close()


@pytest.fixture
def node(target: Target) -> Iterator[Node]:
    with Node.open(target.run, "coordinator.0", arena_budget_nbytes=16 << 20) as opened:
        yield opened


@pytest.fixture
def honest(node: Node) -> Client:
    return node.connect("adder.0", deadline_s=10)


@pytest.fixture
def serves(node: Node) -> Callable[[], None]:
    """Asserts that a new honest client is greeted and served within a second."""

    def check() -> None:
        started_s = time.monotonic()
        client = node.connect("adder.0", deadline_s=10)
        returned = client.call("adder", "add_one", {"x": torch.ones(3)}, deadline_s=10).values["value"]
        assert torch.equal(returned.tensor(), torch.full((3,), 2.0))
        assert client.ping(5).num_tickets == 0
        assert time.monotonic() - started_s < 1
        client.close()

    return check


class Peer:
    """Holds the run's key, speaks the protocol as far as it wants to."""

    def __init__(self, target: Target, name: str = "peer.0.1.0000", *, kind: str = "calls", number: int = 1) -> None:
        self.name = name
        self.target = target
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.identity = f"{name}#{number}".encode()
        self.socket = client_socket(self.context, target.run, f"ipc://{target.path(kind)}", self.identity)
        self.side: SideChannel | None = None
        self.server = ""
        self._last_id = 0

    def greet(self, *, side: bool = True) -> Welcome:
        self.send(Hello(PROTOCOL_VERSION, self.name))
        welcome = self.receive()
        assert isinstance(welcome, Welcome)
        self.server = welcome.name
        if side:
            self.side = SideChannel.connect(self.target.path("side"), welcome.token, "server")
        return welcome

    def send(self, message: Message) -> None:
        self.socket.send(encode(message))

    def receive(self, timeout_s: float = 10) -> Message | None:
        return decode(self.socket.recv()) if self.socket.poll(round(timeout_s * 1000)) else None

    def offer(self, descriptor: int, nbytes: int, *, owner: str | None = None, segment: int = 0) -> None:
        assert self.side is not None
        self.side.send_segment(OfferedSegment(owner or self.name, segment, nbytes, descriptor), deadline_s=5)

    def ask(self, *tensors: WireTensor, method: str = "add_one") -> Result | Failure:
        self._last_id += 1
        arguments = {name: tensor for name, tensor in zip("xyz", tensors, strict=False)}
        self.send(Call(self._last_id, "adder", method, arguments, None, []))
        answer = self.receive()
        assert isinstance(answer, Result | Failure)
        assert answer.id == self._last_id
        return answer

    def refused(self, *tensors: WireTensor) -> str:
        """The code with which a call with these tensors was refused."""
        answer = self.ask(*tensors)
        assert isinstance(answer, Failure)
        assert sorted(answer.released) == sorted(tensor.lease for tensor in tensors), "no lease is kept"
        assert self.target.path("side") not in answer.text
        return answer.code

    def close(self) -> None:
        if self.side is not None:
            self.side.close()
        self.context.destroy(linger=0)


@pytest.fixture
def peers(target: Target) -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(*arguments: str, **options: str | int) -> Peer:
        made.append(Peer(target, *arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for peer in made:
        peer.close()
