"""Ends a process with its parent, and runs echo servers as children. Callers and all servers of peers use it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.ipc.contestant import DEADLINE_S

READY = b"ready\n"
_PR_SET_PDEATHSIG = 1
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends, for any reason.

    A contestant without a turn is stopped (SIGSTOP), and a stopped process notices no closed socket.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def say_ready() -> None:
    """Tell the caller, which waits in `EchoServer.start`, that this server answers the next request."""
    os.write(sys.stdout.fileno(), READY)


class EchoServer:
    """A peer's server, `python -m MODULE ARGUMENTS...`: it reports when it is ready and ends on request."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
        )

    def wait_ready(self) -> None:
        """Wait until the server is ready.

        Raises:
            RuntimeError: the server ended, or was not ready in time.
        """
        assert self._process.stdout is not None
        received = b""
        deadline = time.monotonic() + DEADLINE_S
        while READY not in received:
            remaining_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], remaining_s)[0]:
                raise RuntimeError(f"{self._module}: expected `ready` within {DEADLINE_S:.0f} s, got {received!r}")
            chunk = os.read(self._process.stdout.fileno(), 4096)
            if not chunk:
                raise RuntimeError(f"{self._module}: ended with exit code {self._process.wait(10)} before it was ready")
            received += chunk

    def close(self) -> None:
        """Wait for the end that the peer's own protocol has requested; kill the server if it does not end."""
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
