"""A Unix stream socket: eight bytes with the length, then the tensor's bytes, into warm memory in both directions."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import torch

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.lifetime import EchoServer, die_with_parent, say_ready

_LENGTH_NBYTES = 8


class TensorStream:
    """Tensors through a connected socket; a received tensor is valid until the next arrives."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._arrived = torch.empty(0)

    def send(self, tensor: torch.Tensor) -> None:
        """Send length and bytes of a tensor."""
        self._socket.sendall(tensor.nbytes.to_bytes(_LENGTH_NBYTES, "little"))
        self._socket.sendall(tensor.numpy())

    def receive(self) -> torch.Tensor | None:
        """Receive the next tensor; None when the other side has closed."""
        header = self._socket.recv(_LENGTH_NBYTES, socket.MSG_WAITALL)
        if not header:
            return None
        nbytes = int.from_bytes(header, "little")
        if self._arrived.nbytes != nbytes:
            self._arrived = torch.zeros(nbytes // 4)
        window = memoryview(self._arrived.numpy()).cast("B")
        while window:
            received = self._socket.recv_into(window)
            if not received:
                raise ConnectionError(f"expected {len(window)} more bytes, the other side has closed")
            window = window[received:]
        return self._arrived


class UnixSocket(Contestant):
    """The caller's side."""

    name = "unix_socket"

    def __init__(self, folder: Path) -> None:
        self._path = f"{folder}/unix_socket.sock"
        self._server = EchoServer(__name__, [self._path])

    def start(self) -> None:
        self._server.wait_ready()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(self._path)
        # a deadline in the kernel: Python's own timeout would poll before every call
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(DEADLINE_S))
        self._stream = TensorStream(self._socket)

    def echo(self, x: torch.Tensor) -> torch.Tensor | None:
        self._stream.send(x)
        return self._stream.receive()

    def close(self) -> None:
        self._socket.close()
        self._server.close()


def _timeval(seconds: float) -> bytes:
    return int(seconds).to_bytes(8, sys.byteorder) + bytes(8)


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller."""
    return [UnixSocket(folder)]


def serve(path: str) -> None:
    """Answer until the caller closes."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        say_ready()
        with listening.accept()[0] as connected:
            stream = TensorStream(connected)
            y = torch.empty(0)
            while (x := stream.receive()) is not None:
                y = torch.add(x, 1, out=y if y.shape == x.shape else torch.zeros_like(x))
                stream.send(y)


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    serve(sys.argv[1])
