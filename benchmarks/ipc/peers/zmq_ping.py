"""A bare ZeroMQ ping-pong: one byte there and one back, DEALER and ROUTER, no encryption, no encoding.

It measures what ZeroMQ itself costs from Python. It carries no tensor; the answer is the sent byte plus one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import zmq

from benchmarks.ipc.contestant import DEADLINE_S, Contestant, WrongAnswer
from benchmarks.ipc.lifetime import EchoServer, die_with_parent, say_ready


class ZmqPing(Contestant):
    """The caller's side."""

    name = "zmq_ping"
    note = "one byte there and back, for any size of x"

    def __init__(self, folder: Path) -> None:
        self._endpoint = f"ipc://{folder}/zmq_ping.sock"
        self._server = EchoServer(__name__, [self._endpoint])

    def start(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, round(DEADLINE_S * 1000))
        self._server.wait_ready()
        self._socket.connect(self._endpoint)

    def echo(self, x: torch.Tensor) -> bytes:
        self._socket.send(b"\x01")
        return self._socket.recv()

    def check(self, x: torch.Tensor, y: bytes) -> None:
        if y != b"\x02":
            raise WrongAnswer(f"{self.name}: expected the byte 2, got {y!r}")

    def close(self) -> None:
        self._socket.send(b"")
        self._server.close()
        self._context.destroy(linger=0)


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller."""
    return [ZmqPing(folder)]


def serve(endpoint: str) -> None:
    """Answer until an empty message comes."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(endpoint)
        say_ready()
        while True:
            identity, request = router.recv_multipart()
            if not request:
                return
            router.send_multipart([identity, bytes([request[0] + 1])])


if __name__ == "__main__":
    die_with_parent()
    serve(sys.argv[1])
