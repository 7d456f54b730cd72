"""`multiprocessing.shared_memory`: a new named segment for every message; its name is sent over a pipe."""

from __future__ import annotations

import os
import sys
from multiprocessing import resource_tracker
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import torch

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.lifetime import EchoServer, die_with_parent, say_ready


def attach(name: str) -> SharedMemory:
    """Map a segment that the other process made and later removes."""
    segment = SharedMemory(name)
    # before Python 3.13 attaching also registers the segment for removal, but only its maker should remove it
    resource_tracker.unregister(f"/{segment.name}", "shared_memory")
    return segment


def tensor_in(segment: SharedMemory, nbytes: int) -> torch.Tensor:
    """The first bytes of a segment as float32; drop the tensor before the segment is closed."""
    return torch.frombuffer(segment.buf, dtype=torch.float32, count=nbytes // 4)


class ShmSegment(Contestant):
    """The caller's side."""

    name = "shm_segment"

    def __init__(self, folder: Path) -> None:
        self._path = f"{folder}/shm_segment.sock"
        status = os.statvfs("/dev/shm")
        self.max_nbytes = status.f_bavail * status.f_frsize // 2  # x and y at once
        self._server = EchoServer(__name__, [self._path])

    def start(self) -> None:
        self._server.wait_ready()
        self._connection: Connection = Client(self._path)
        self._segment: SharedMemory | None = None

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        if self._segment is not None:
            self._segment.close()  # the segment of the previous answer, whose tensor has been dropped
        request = SharedMemory(create=True, size=x.nbytes)
        tensor_in(request, x.nbytes).copy_(x)
        self._connection.send((request.name, x.nbytes))
        if not self._connection.poll(DEADLINE_S):
            raise TimeoutError(f"{self.name}: no answer within {DEADLINE_S:.0f} s")
        self._segment = attach(self._connection.recv())
        request.close()
        request.unlink()
        return tensor_in(self._segment, x.nbytes)

    def finish(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        self._connection.send(None)  # the server removes its last answer

    def close(self) -> None:
        self._connection.close()
        self._server.close()


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller."""
    return [ShmSegment(folder)]


def serve(path: str) -> None:
    """Answer until the caller closes."""
    with Listener(path) as listener:
        say_ready()
        with listener.accept() as connection:
            answer: SharedMemory | None = None
            while True:
                try:
                    request = connection.recv()
                except EOFError:
                    return
                answer = _answered(connection, request, answer)


def _answered(
    connection: Connection, request: tuple[str, int] | None, last: SharedMemory | None
) -> SharedMemory | None:
    """Answer in a new segment and return it; removes the previous answer, which the caller has read."""
    if last is not None:
        last.close()
        last.unlink()
    if request is None:
        return None
    name, nbytes = request
    x, answer = attach(name), SharedMemory(create=True, size=nbytes)
    torch.add(tensor_in(x, nbytes), 1, out=tensor_in(answer, nbytes))
    x.close()
    connection.send(answer.name)
    return answer


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    serve(sys.argv[1])
