"""A process that is given turns: started, asked, stopped between turns, ended. `remote_peers` and `mlp` use it.

Between turns SIGSTOP stops it and all its children, because the threads of some libraries keep a core busy while they
wait for messages (torch.distributed.rpc, Ray's compiled graphs), which would slow the next contestant down.
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
    """A contestant, or its process, did not start or did not finish its turn."""


class TurnProcess:
    """`python -m MODULE FOLDER RESULTS_FD ARGUMENTS...`: reads JSON lines from stdin, answers each on the descriptor.

    Its first answer says that it is ready; its last, after the end of stdin, that it has closed.

    Args:
        word: its name in messages and in the name of its output file.
        folder: receives sockets and output; its path should be short.
        variables: environment variables, in addition to those of this process.
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
                start_new_session=True,  # Ctrl-C reaches only the benchmark, which then ends its processes
            )
        os.close(theirs)

    def first_answer(self) -> dict[str, Any]:
        """Wait until the process is ready, and stop it.

        Raises:
            TurnFailed: the process ended, or took too long.
        """
        answer = self._read(DEADLINE_S)
        self.stop()
        return answer

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Resume the process until it has answered one command.

        Raises:
            TurnFailed or OSError: the process has ended, or took too long.
        """
        self.resume()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._read(DEADLINE_S)
        self.stop()
        return answer

    def stop(self) -> None:
        """Stop every process of this tree."""
        self._signal(signal.SIGSTOP)
        self._is_stopped = True

    def resume(self) -> None:
        """Resume every process of this tree."""
        self._signal(signal.SIGCONT)
        self._is_stopped = False

    def _signal(self, number: int) -> None:
        for process in self._tree():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue  # the process ended meanwhile

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
        """End the process and all it started; kill them if not `orderly` or if they do not end on request."""
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
                print(f"{self.word}: did not end on request, so it is killed ({error})", file=sys.stderr)
        for process in reversed(started):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue  # the process has ended, as expected
        self._process.wait(_CLOSE_DEADLINE_S)
        os.close(self._results)
