"""ZeroMQ with the tensor's bytes as the message (`copy=False`: handed to the socket without a copy in Python)."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import zmq

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.lifetime import EchoServer, die_with_parent, say_ready


class ZmqInline(Contestant):
    """The caller's side."""

    name = "zmq_inline"

    def __init__(self, folder: Path) -> None:
        self._endpoint = f"ipc://{folder}/zmq_inline.sock"
        self._server = EchoServer(__name__, [self._endpoint])

    def start(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, round(DEADLINE_S * 1000))
        self._server.wait_ready()
        self._socket.connect(self._endpoint)

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        self._socket.send(x.numpy(), copy=False)
        return torch.frombuffer(self._socket.recv(copy=False).buffer, dtype=torch.float32)

    def close(self) -> None:
        self._socket.send(b"")
        self._server.close()
        self._context.destroy(linger=0)


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller."""
    return [ZmqInline(folder)]


def serve(endpoint: str) -> None:
    """Answer until an empty message comes."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(endpoint)
        say_ready()
        while True:
            identity, request = router.recv_multipart(copy=False)
            if not len(request):
                return
            y = torch.frombuffer(request.buffer, dtype=torch.float32) + 1
            router.send_multipart([identity, y.numpy()], copy=False)


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    serve(sys.argv[1])
