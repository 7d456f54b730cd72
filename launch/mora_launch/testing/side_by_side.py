"""Runs commands next to each other: each one's output is printed whole when it ends."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mora_launch.testing.stages import Stage

STAGE_DEADLINE_S = 3600.0
END_DEADLINE_S = 20.0  # for a command that is interrupted to end by itself


@dataclass(frozen=True)
class Ended:
    """How a stage has ended."""

    stage: Stage
    exit_code: int
    spent_s: float
    output: str


class _Running:
    """One command in a session of its own: the terminal's Ctrl-C reaches the runner alone, which then ends all."""

    def __init__(self, stage: Stage, folder: Path, variables: Mapping[str, str]) -> None:
        self.stage = stage
        self.started_s = time.monotonic()
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed as it is collected
        self._process = subprocess.Popen(
            stage.command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **variables},
            start_new_session=True,
        )
        self.pidfd = os.pidfd_open(self._process.pid)

    def ended(self) -> Ended:
        """Collect it; it has ended."""
        exit_code = self._process.wait(END_DEADLINE_S)
        os.close(self.pidfd)
        with self._output:
            self._output.seek(0)
            text = self._output.read().decode(errors="replace")
        return Ended(self.stage, exit_code, time.monotonic() - self.started_s, text)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command and everything in its session."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return  # already gone

    def end(self, deadline: float) -> None:
        """Wait until it has ended; kill it when the deadline comes first."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)


def run_side_by_side(
    stages: Sequence[Stage],
    *,
    num_jobs: int,
    folder: Path,
    variables: Mapping[str, str],
    on_start: Callable[[Stage], None],
    on_end: Callable[[Ended], None],
) -> list[Ended]:
    """Run all stages, `num_jobs` at a time, in their order except for those that wait for others (`Stage.after`).

    A stage is not run if one that it waits for has failed. An exception (Ctrl-C) interrupts the commands that run,
    waits for them, and passes on.
    """
    waiting = list(stages)
    running: list[_Running] = []
    ended: list[Ended] = []
    try:
        while waiting or running:
            for stage, failed in _hopeless(waiting, ended):
                waiting.remove(stage)
                ended.append(Ended(stage, 1, 0.0, f"not run, because {failed} failed\n"))
                on_end(ended[-1])
            while len(running) < num_jobs and (following := _startable(waiting, running)) is not None:
                waiting.remove(following)
                on_start(following)
                running.append(_Running(following, folder, variables))
            for each in _wait(running) if running else ():
                running.remove(each)
                ended.append(each.ended())
                on_end(ended[-1])
    finally:
        _end_all(running)
    return ended


def _hopeless(waiting: Sequence[Stage], ended: Sequence[Ended]) -> list[tuple[Stage, str]]:
    """Stages that wait for one that has failed, with its name."""
    failed = {each.stage.name for each in ended if each.exit_code != 0}
    return [(stage, name) for stage in waiting if (name := next(iter(failed.intersection(stage.after)), None))]


def _startable(waiting: Sequence[Stage], running: Sequence[_Running]) -> Stage | None:
    """The first stage whose predecessors are over."""
    unfinished = {stage.name for stage in waiting} | {each.stage.name for each in running}
    return next((stage for stage in waiting if unfinished.isdisjoint(stage.after)), None)


def _wait(running: Sequence[_Running]) -> list[_Running]:
    """Those that have ended, once one has; one that is past its deadline is killed."""
    deadline = min(each.started_s for each in running) + STAGE_DEADLINE_S
    with selectors.DefaultSelector() as selector:
        for each in running:
            selector.register(each.pidfd, selectors.EVENT_READ, each)
        found = [key.data for key, _ in selector.select(max(0.0, deadline - time.monotonic()))]
    if found:
        return found
    late = [each for each in running if time.monotonic() >= each.started_s + STAGE_DEADLINE_S]
    for each in late:
        each.signal(signal.SIGKILL)
    return late


def _end_all(running: Sequence[_Running]) -> None:
    try:
        for each in running:
            each.signal(signal.SIGINT)  # pytest then ends what its tests have started
        deadline = time.monotonic() + END_DEADLINE_S
        for each in running:
            each.end(deadline)
    finally:  # also after a second Ctrl-C
        for each in running:
            each.signal(signal.SIGKILL)
            each.ended()
