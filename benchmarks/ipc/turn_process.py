"""A process that is given turns: started, asked, stopped between turns, ended. Used by `remote_peers` and by `mlp`.

It is stopped (SIGSTOP) with everything it started while it waits for its turn, because some libraries' threads keep a
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.ipc.contestant import DEADLINE_S

_CLOSE_DEADLINE_S = 40.0


class TurnFailed(Exception):
    """A contestant, or the process it plays in, could not be started or did not finish its turn."""


class TurnProcess:
    """`python -m MODULE FOLDER RESULTS_FD ARGUMENTS...`: takes JSON lines on stdin, answers each on the descriptor.

    Its first answer says that it is ready, its last, after the end of stdin, that it has closed.

    Args:
        word: names it in messages and its output's file.
        folder: for sockets and output; its path should be short.
        variables: of its environment, beside this process's own.
    """

    def __init__(
        self, word: str, module: str, arguments: Sequence[str], folder: Path, variables: Mapping[str, str]
    ) -> None:
        self.word = word
        self._output = folder / f"{word}.out"
        self._received = b""
        self._is_stopped = False
        self.is_closed = False
        results, theirs = os.pipe()
        self._results = results
        with open(self._output, "wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder), str(theirs), *arguments],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                pass_fds=[theirs],
                env={**os.environ, **variables},
                start_new_session=True,  # the terminal's Ctrl-C is for the benchmark, which then ends its processes
            )
        os.close(theirs)

    def first_answer(self) -> dict[str, Any]:
        """Wait until it is ready; it is stopped then.

        Raises:
            TurnFailed: it ended, or took too long.
        """
        answer = self._read(DEADLINE_S)
        self.stop()
        return answer

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Let it go on until it has answered one command.

        Raises:
            TurnFailed: it has ended, or took too long; OSError likewise.
        """
        self.resume()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._read(DEADLINE_S)
        self.stop()
        return answer

    def stop(self) -> None:
        """Halt every process of this tree where it stands."""
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
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _read(self, deadline_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + deadline_s
        while b"\n" not in self._received:
            if not select.select([self._results], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TurnFailed(f"{self.word}: no answer within {deadline_s:.0f} s; {self._last_words()}")
            chunk = os.read(self._results, 65536)
            if not chunk:
                raise TurnFailed(f"{self.word}: its process has ended; {self._last_words()}")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        lines = self._output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "last line of its output: " + (lines[-1] if lines else "none")

    def close(self, *, orderly: bool = True) -> None:
        """End the process and all it started: by its own means, or killed where those fail or are not wanted."""
        if self.is_closed:
            return
        self.is_closed = True
        started = self._tree()
        if orderly and self._is_stopped:
            self.resume()
        assert self._process.stdin is not None
        self._process.stdin.close()
        if orderly:
            try:
                self._read(_CLOSE_DEADLINE_S)
                self._process.wait(_CLOSE_DEADLINE_S)
            except (TurnFailed, subprocess.TimeoutExpired) as error:
                print(f"{self.word}: did not close by itself and is killed ({error})", file=sys.stderr)
        for process in reversed(started):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue  # as it should be
        self._process.wait(_CLOSE_DEADLINE_S)
        os.close(self._results)
