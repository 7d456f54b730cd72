"""Runs parts one after the other, each in a process of its own that is killed at its deadline."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from pathlib import Path

from benchmarks.device_check.figures import read_figures
from benchmarks.device_check.marked_processes import MARK, kill, processes_left
from benchmarks.device_check.outcome import Outcome
from benchmarks.device_check.plan import TOTAL_S, Part
from benchmarks.device_check.request import Request
from benchmarks.device_check.source_folders import ROOT

_NUM_LAST_LINES = 5
_LINE_LENGTH = 300


class Runner:
    """Runs parts until the total deadline.

    Args:
        folder: for the files of the parts.
        patience: factor on all deadlines. Parts that have not begun by the total deadline are skipped, and one that
            runs is killed.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self._folder = folder
        self._patience = patience
        self._total_s = patience * TOTAL_S
        self._began_s = time.monotonic()

    def remaining_s(self) -> float:
        """Seconds until the total deadline; negative after it."""
        return self._total_s - (time.monotonic() - self._began_s)

    def run(self, part: Part, python: Path, request: Request) -> Outcome:
        """Run one part to its end or its deadline."""
        remaining_s = self.remaining_s()
        if remaining_s <= 0:
            return Outcome("skipped", reason=f"the {self._total_s:.0f} s of the whole check were over")
        process = PartProcess(part, python, request, self._folder / part.name)
        return process.wait(min(self._patience * part.deadline_s, remaining_s))


class PartProcess:
    """The process of one part; it starts here."""

    def __init__(self, part: Part, python: Path, request: Request, folder: Path) -> None:
        folder.mkdir()
        self._log = folder / "log"
        self._figures, self._outcome = folder / "figures.json", folder / "outcome.json"
        self._mark = str(uuid.uuid4())
        self._began_s = time.monotonic()
        request.write(folder / "request.json")
        files = (folder / "request.json", self._figures, self._outcome)
        command = [str(python), "-m", "benchmarks.device_check.part_process", *map(str, files)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT,
                env={**os.environ, MARK: self._mark}, start_new_session=True,
            )  # fmt: skip

    def wait(self, deadline_s: float) -> Outcome:
        """Wait for the end, at most `deadline_s`; nothing that the part started is left."""
        try:
            code = self._process.wait(deadline_s)
            outcome = self._read(code)
        except subprocess.TimeoutExpired:
            outcome = Outcome("failed", reason=f"no end within {deadline_s:.0f} s; {self._last_lines()}")
            self._process.kill()
            self._process.wait()
        except BaseException:  # Ctrl-C
            kill(processes_left(self._mark))
            raise
        outcome.seconds = round(time.monotonic() - self._began_s, 2)
        outcome.figures = read_figures(self._figures)
        self._end_processes(outcome)
        return outcome

    def _read(self, code: int) -> Outcome:
        if not self._outcome.exists():
            return Outcome("failed", reason=f"its process ended with {code} and no result; {self._last_lines()}")
        content = json.loads(self._outcome.read_text(encoding="utf-8"))
        return Outcome(content["status"], reason=content["reason"])

    def _end_processes(self, outcome: Outcome) -> None:
        left = processes_left(self._mark)
        if left:
            outcome.fail(f"processes were left: {', '.join(str(each.pid) for each in left)}")
            kill(left)

    def _last_lines(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_NUM_LAST_LINES:]
        said = " | ".join(line.strip()[:_LINE_LENGTH] for line in lines if line.strip())
        return f"the last lines of its log: {said}" if said else "its log is empty"
