"""The processes that call the peers, seen from the benchmark: started, given turns, stopped between them, ended.

A caller that waits for its turn is stopped (SIGSTOP) with everything it started, because some peers' threads keep a
core busy while they wait for messages (torch.distributed.rpc, a compiled graph of Ray's) and the next contestant would
pay for it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.ipc.contestant import DEADLINE_S, Turn
from benchmarks.ipc.lifetime import ONE_THREAD
from benchmarks.ipc.peers import Family

_CLOSE_DEADLINE_S = 40.0


class PeerFailed(Exception):
    """A peer, or its caller, could not be started or did not finish its turn."""


class Caller:
    """One process that calls the echo servers of some families of peers.

    Args:
        folder: for sockets and the callers' output; its path should be short.
    """

    def __init__(self, word: str, families: Sequence[Family], folder: Path) -> None:
        self.word = word
        self._output = folder / f"{word}.out"
        self._received = b""
        self._is_stopped = False
        self._is_closed = False
        results, theirs = os.pipe()
        self._results = results
        modules = [family.path for family in families]
        with open(self._output, "wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.ipc.caller", str(folder), str(theirs), *modules],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                pass_fds=[theirs],
                env={**os.environ, **ONE_THREAD},
                start_new_session=True,  # the terminal's Ctrl-C is for the benchmark, which then ends its callers
            )
        os.close(theirs)

    def wait_ready(self) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """The contestants that it has, by name (`note`, `max_nbytes`), and why others could not be started."""
        answer = self._read(DEADLINE_S)
        self.stop()
        return answer["contestants"], answer["failed"]

    def take_turn(self, name: str, turn: Turn) -> list[float]:
        """Microseconds of each timed echo.

        Raises:
            PeerFailed: it gave a wrong answer, failed, or took too long.
        """
        if self._is_closed:
            raise PeerFailed(f"{name}: its caller was ended when another contestant of it failed")
        try:
            answer = self._ask({"name": name, "turn": asdict(turn)})
        except (PeerFailed, OSError) as error:
            self.close(orderly=False)  # in the middle of something, so it cannot take another turn
            raise PeerFailed(f"{name}: {error}") from None
        if "error" in answer:
            raise PeerFailed(f"{name}: {answer['error']}")
        times_us: list[float] = answer["times_us"]
        return times_us

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        self.resume()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._read(DEADLINE_S)
        self.stop()
        return answer

    def stop(self) -> None:
        """Halt every process of this caller where it stands."""
        self._signal(signal.SIGSTOP)
        self._is_stopped = True

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)
        self._is_stopped = False

    def _signal(self, number: int) -> None:
        for process in self._tree():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue  # ended by itself meanwhile

    def _tree(self) -> list[psutil.Process]:
        try:
            caller = psutil.Process(self._process.pid)
            return [caller, *caller.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _read(self, deadline_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + deadline_s
        while b"\n" not in self._received:
            if not select.select([self._results], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise PeerFailed(f"{self.word}: no answer within {deadline_s:.0f} s; {self._last_words()}")
            chunk = os.read(self._results, 65536)
            if not chunk:
                raise PeerFailed(f"{self.word}: its caller has ended; {self._last_words()}")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        lines = self._output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "last line of its output: " + (lines[-1] if lines else "none")

    def close(self, *, orderly: bool = True) -> None:
        """End the caller and all it started: by its own means, or killed where those fail or are not wanted."""
        if self._is_closed:
            return
        self._is_closed = True
        started = self._tree()
        if orderly and self._is_stopped:
            self.resume()
        assert self._process.stdin is not None
        self._process.stdin.close()
        if orderly:
            try:
                self._read(_CLOSE_DEADLINE_S)
                self._process.wait(_CLOSE_DEADLINE_S)
            except (PeerFailed, subprocess.TimeoutExpired) as error:
                print(f"{self.word}: did not close by itself and is killed ({error})", file=sys.stderr)
        for process in reversed(started):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue  # as it should be
        self._process.wait(_CLOSE_DEADLINE_S)
        os.close(self._results)
