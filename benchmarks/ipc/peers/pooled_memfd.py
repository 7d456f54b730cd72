"""Shared memory made once, written by hand for this benchmark: both processes map two memfds for x and y.

It uses no framework: only the size travels there and back, over ZeroMQ or a Unix seqpacket socket (the doorbell). The
additional time of Mora is the cost of its generality.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
from pathlib import Path

import torch
import zmq

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.lifetime import EchoServer, die_with_parent, say_ready

_POOL_NBYTES = 256 << 20
_WORD_NBYTES = 8


class Pool:
    """Two shared buffers for x and y, each as large as the largest message."""

    def __init__(self, descriptors: list[int]) -> None:
        self.descriptors = descriptors
        maps = [mmap.mmap(descriptor, _POOL_NBYTES) for descriptor in descriptors]
        self._x, self._y = (torch.frombuffer(mapped, dtype=torch.float32) for mapped in maps)

    @classmethod
    def create(cls) -> Pool:
        """Make two new memfds; their pages are allocated by the first write."""
        descriptors = [os.memfd_create(name) for name in ("x", "y")]
        for descriptor in descriptors:
            os.ftruncate(descriptor, _POOL_NBYTES)
        return cls(descriptors)

    def x(self, nbytes: int) -> torch.Tensor:
        """The x of a request."""
        return self._x[: nbytes // 4]

    def y(self, nbytes: int) -> torch.Tensor:
        """The y of an answer."""
        return self._y[: nbytes // 4]

    def answer(self, word: bytes) -> bytes:
        """Compute y for the request that the word announces; returns the word that announces y."""
        nbytes = int.from_bytes(word, "little")
        torch.add(self.x(nbytes), 1, out=self.y(nbytes))
        return word


class PooledMemfdDoorbell(Contestant):
    """The caller's side. The socket first carries the descriptors, then the words."""

    name = "pooled_memfd_doorbell"
    max_nbytes = _POOL_NBYTES

    def __init__(self, folder: Path) -> None:
        self._path, self._endpoint = f"{folder}/{self.name}.sock", f"ipc://{folder}/{self.name}.zmq"
        self._server = EchoServer(__name__, [self._path, self._endpoint])

    def start(self) -> None:
        self._server.wait_ready()
        self._pool = Pool.create()
        self._doorbell = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._doorbell.connect(self._path)
        socket.send_fds(self._doorbell, [b"pool"], self._pool.descriptors)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, round(DEADLINE_S * 1000))

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        self._pool.x(x.nbytes).copy_(x)
        answer = self._exchange(x.nbytes.to_bytes(_WORD_NBYTES, "little"))
        return self._pool.y(int.from_bytes(answer, "little"))

    def _exchange(self, word: bytes) -> bytes:
        self._doorbell.send(word)
        return self._doorbell.recv(_WORD_NBYTES)

    def close(self) -> None:
        self._doorbell.close()
        self._server.close()
        self._context.destroy(linger=0)


class PooledMemfdZmq(PooledMemfdDoorbell):
    """The same, with the words over ZeroMQ."""

    name = "pooled_memfd_zmq"

    def start(self) -> None:
        super().start()
        self._doorbell.send(b"zmq")
        self._doorbell.recv(_WORD_NBYTES)  # the server has bound its ZeroMQ socket
        self._socket.connect(self._endpoint)

    def _exchange(self, word: bytes) -> bytes:
        self._socket.send(word)
        return self._socket.recv()

    def close(self) -> None:
        self._socket.send(b"")
        super().close()


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller."""
    return [PooledMemfdZmq(folder), PooledMemfdDoorbell(folder)]


def serve(path: str, endpoint: str) -> None:
    """Answer the one caller that connects until it closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen()
        say_ready()
        with listening.accept()[0] as doorbell:
            pool = Pool(socket.recv_fds(doorbell, 16, 2)[1])
            while word := doorbell.recv(_WORD_NBYTES):
                if word == b"zmq":
                    _serve_zmq(doorbell, pool, endpoint)
                    return
                doorbell.send(pool.answer(word))


def _serve_zmq(doorbell: socket.socket, pool: Pool, endpoint: str) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(endpoint)
        doorbell.send(b"bound")
        while True:
            identity, word = router.recv_multipart()
            if not word:
                return
            router.send_multipart([identity, pool.answer(word)])


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    serve(sys.argv[1], sys.argv[2])
