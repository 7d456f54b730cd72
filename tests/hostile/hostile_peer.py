"""The server under attack, and a peer that has the run's key and ignores the protocol's rules."""

import contextlib
import itertools
import os
import subprocess
from dataclasses import dataclass

import zmq
from mora_runtime import RunDirectory
from mora_runtime.tensors.segment import Segment
from mora_runtime.wire.codec import decode, encode
from mora_runtime.wire.doorbell import Doorbell, OfferedSegment
from mora_runtime.wire.messages import PROTOCOL_VERSION, Call, Failure, Hello, Message, Result, Welcome, WireTensor
from mora_runtime.wire.sockets import client_socket

_numbers = itertools.count(1000)


@dataclass
class Target:
    """The server under attack."""

    run: RunDirectory
    process: subprocess.Popen[bytes]

    def num_descriptors(self) -> int:
        """Open descriptors of the server."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def num_descriptors_of(self, segment: Segment) -> int:
        """The server's open descriptors of one memfd; others may open and close meanwhile."""
        return self.num_open(segment.descriptor)

    def num_open(self, descriptor: int) -> int:
        """The server's open descriptors of the file that this process has as `descriptor`."""
        inode, found = os.fstat(descriptor).st_ino, 0
        for link in os.scandir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                found += os.stat(link.path).st_ino == inode
        return found

    def opened(self) -> set[str]:
        """Targets of the server's descriptors."""
        found = set()
        for link in os.scandir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                found.add(os.readlink(link.path))
        return found

    def path(self, kind: str) -> str:
        """Path of one of its sockets."""
        return str(self.run.socket("adder.0", kind))


class Peer:
    """Has the run's key and follows the protocol only as far as a test wants."""

    def __init__(self, target: Target, name: str = "peer.0.1.0000", *, kind: str = "calls", number: int = 0) -> None:
        self.name = name
        self.target = target
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # a name that the last peer has just left may be taken for a moment: who comes second is not let in
        self.identity = f"{name}#{number or next(_numbers)}".encode()
        self.socket = client_socket(self.context, target.run, f"ipc://{target.path(kind)}", self.identity)
        self.doorbell: Doorbell | None = None
        self.server = ""
        self._last_id = 0

    def greet(self, *, doorbell: bool = True) -> Welcome:
        self.send(Hello(PROTOCOL_VERSION, self.name))
        welcome = self.receive()
        assert isinstance(welcome, Welcome), f"expected WELCOME, got {welcome}"
        self.server = welcome.name
        if doorbell:
            self.doorbell = Doorbell.connect(self.target.path("doorbell"), welcome.token, "server")
        return welcome

    def send(self, message: Message) -> None:
        self.socket.send(encode(message))

    def receive(self, timeout_s: float = 10) -> Message | None:
        return decode(self.socket.recv()) if self.socket.poll(round(timeout_s * 1000)) else None

    def offer(self, descriptor: int, nbytes: int, *, owner: str | None = None, segment: int = 0) -> None:
        assert self.doorbell is not None
        self.doorbell.send_segment(OfferedSegment(owner or self.name, segment, nbytes, descriptor))

    def ask(self, *tensors: WireTensor, method: str = "add_one") -> Result | Failure:
        self._last_id += 1
        arguments = {name: tensor for name, tensor in zip("xyz", tensors, strict=False)}
        self.send(Call(self._last_id, "adder", method, arguments, None, None, False, []))
        answer = self.receive()
        assert isinstance(answer, Result | Failure)
        assert answer.id == self._last_id
        return answer

    def refused(self, *tensors: WireTensor) -> str:
        """Error code of a refused call with these tensors."""
        answer = self.ask(*tensors)
        assert isinstance(answer, Failure)
        assert sorted(answer.released) == sorted(tensor.lease for tensor in tensors), "no lease is kept"
        assert self.target.path("doorbell") not in answer.text
        return answer.code

    def close(self) -> None:
        if self.doorbell is not None:
            self.doorbell.close()
        self.context.destroy(linger=0)
