"""The common tools of this folder's attackers: the attacked server, and the results of an honest client meanwhile."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

SECRET = "the-secret-of-the-servers-user"
# An idle machine answers within one second; this one may be busy with other tests. Before the fixes it took minutes.
PATIENCE_S = 8.0


@dataclass
class Served:
    """A running server, a client of its own user, and methods to inspect it."""

    process: subprocess.Popen[bytes]
    run: Path
    port: int
    http: httpx.Client
    secret: Path  # a file that only the server's user may read

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.run / "token").read_text()

    @property
    def front(self) -> psutil.Process:
        """The HTTP process; `mora` replaces itself with it."""
        return psutil.Process(self.process.pid)

    def decoders(self) -> list[psutil.Process]:
        """Processes that decode."""
        children = self.front.children()
        return [child for child in children if "mora_launch.decoding.worker" in " ".join(child.cmdline())]

    def own_nbytes(self) -> int:
        """Memory of the front, without the memory that it shares with the servers for tensors of honest work."""
        used = self.front.memory_info()
        return int(used.rss - used.shared)

    def connection(self) -> socket.socket:
        """A raw connection of the server's own user."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def files(self) -> dict[str, int]:
        """Size of every file in the videos' folder, by name."""
        found = {}
        for path in (self.run / "videos").rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    found[str(path.relative_to(self.run))] = path.stat().st_size
        return found


@dataclass
class Honest:
    """Results of an honest client while others attacked.

    Attributes:
        patience_s: how long it waits for an answer; longer where it is served slowly without any attack.
    """

    patience_s: float = PATIENCE_S
    worst_s: float = 0.0
    num_answers: int = 0
    faults: list[str] = field(default_factory=list)


def until(found: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + deadline_s
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def is_ready(served: Served) -> bool:
    assert served.process.poll() is None, (served.run.parent / "serve.log").read_text()
    with contextlib.suppress(httpx.TransportError):  # it does not listen yet
        return bool(served.http.get("/readyz").json()["ready"])
    return False
