"""The processes that make tiny models: started side by side, and ended together when the command is interrupted."""

from __future__ import annotations

import subprocess
import threading
from collections import deque

from mora_runtime.errors import Cancelled, EnvironmentFailed
from rich.console import Console

from mora_launch.environments.environment import Environment
from mora_launch.environments.venvs import ROOT
from mora_launch.limits import TINY_MODELS_DEADLINE_S

_NUM_LAST_LINES = 8


class TinyMakers:
    """Runs makers for several threads. Any thread may call `stop`."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._is_stopped = False
        self._lock = threading.Lock()

    def run(self, environment: Environment, words: list[str], console: Console | None) -> None:
        """Run a maker to its end, and print its progress.

        Raises:
            EnvironmentFailed: it failed or took too long; the message has its last lines.
            Cancelled: `stop` was called.
        """
        command = [str(environment.python), "-m", environment.package, *words]
        said: deque[str] = deque(maxlen=_NUM_LAST_LINES)
        with self._started(environment, command) as process:
            deadline = threading.Timer(TINY_MODELS_DEADLINE_S, process.kill)
            deadline.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    said.append(line.rstrip())
                    if console is not None and ": step " in line:
                        console.print(f"  {line.rstrip()}", markup=False)
                process.wait(TINY_MODELS_DEADLINE_S)
            finally:
                deadline.cancel()
                if process.returncode is None:
                    process.kill()
        self._running.discard(process)
        self.check()
        if process.returncode != 0:
            tail = "\n    ".join(said)
            shown = f"python -m {environment.package} {' '.join(words[:2])}"
            raise EnvironmentFailed(
                f"environment {environment.name}: `{shown}` ended with {process.returncode}:\n    {tail}"
            )

    def stop(self) -> None:
        """End all makers, and let no further one start."""
        with self._lock:
            self._is_stopped = True
        for process in tuple(self._running):
            process.kill()

    def check(self) -> None:
        """Raise Cancelled after `stop`."""
        if self._is_stopped:
            raise Cancelled("tiny models are not made, because the command was interrupted")

    def _started(self, environment: Environment, command: list[str]) -> subprocess.Popen[str]:
        with self._lock:
            self.check()
            try:
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                    cwd=ROOT,
                )  # fmt: skip
            except OSError as error:
                raise EnvironmentFailed(
                    f"environment {environment.name}: {environment.python} cannot be run: {error.strerror}"
                ) from None
            self._running.add(process)
            return process
