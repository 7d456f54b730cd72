"""MessagePack with the tensor's bytes inside the packed message, over ZeroMQ: the simplest approach."""

from __future__ import annotations

import sys
from pathlib import Path

import msgpack
import torch
import zmq

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.lifetime import EchoServer, die_with_parent, say_ready


def pack(tensor: torch.Tensor) -> bytes:
    """Pack the tensor's shape and bytes."""
    packed: bytes = msgpack.packb({"shape": list(tensor.shape), "data": tensor.numpy().tobytes()})
    return packed


def unpack(message: bytes) -> torch.Tensor:
    """Unpack a tensor that shares the bytes of the decoded message."""
    fields = msgpack.unpackb(message)
    return torch.frombuffer(fields["data"], dtype=torch.float32).view(fields["shape"])


class MsgpackInline(Contestant):
    """The caller's side."""

    name = "msgpack_inline"

    def __init__(self, folder: Path) -> None:
        self._endpoint = f"ipc://{folder}/msgpack_inline.sock"
        self._server = EchoServer(__name__, [self._endpoint])

    def start(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, round(DEADLINE_S * 1000))
        self._server.wait_ready()
        self._socket.connect(self._endpoint)

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        self._socket.send(pack(x))
        return unpack(self._socket.recv())

    def close(self) -> None:
        self._socket.send(b"")
        self._server.close()
        self._context.destroy(linger=0)


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller."""
    return [MsgpackInline(folder)]


def serve(endpoint: str) -> None:
    """Answer until an empty message comes."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(endpoint)
        say_ready()
        while True:
            identity, request = router.recv_multipart()
            if not request:
                return
            router.send_multipart([identity, pack(unpack(request) + 1)])


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    serve(sys.argv[1])
