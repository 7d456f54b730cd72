"""Starts the real command line as a user would, and inspects what it leaves behind."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 280.0
QUICK = (
    "training.num_steps=2",
    "training.batch_size=2",
    "training.micro_batch_size=1",
    "data.num_clips=4",
    "samples.enabled=false",
)


class MoraTrain:
    """One `./mora train` process, its output read line by line."""

    def __init__(
        self,
        run: Path,
        changes: Sequence[str] = (),
        *options: str,
        config: str = "configs/tiny.yaml",
        command: Sequence[str] | None = None,
    ) -> None:
        settings = [word for change in changes for word in ("--set", change)]
        self.run = run
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [str(ROOT / "mora"), *(command or ("train", config, "--run", str(run))), *settings, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )

    def read_until(self, found: Callable[[str], bool]) -> str:
        """Read output until a line matches; AssertionError with all output if the process ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if found(line):
                return line
        raise AssertionError("\n".join(self.lines))

    def finish(self) -> tuple[int, str]:
        """Wait for the end; returns exit code and all output. A process that runs too long is killed."""
        assert self.process.stdout is not None
        too_late = threading.Timer(DEADLINE_S, self.process.kill)
        too_late.start()
        try:
            with self.process.stdout as output:
                # `communicate` would lose the lines that `read_until` has buffered beyond the one it returned
                self.lines += output.read().splitlines()
            return self.process.wait(), "\n".join(self.lines)
        finally:
            too_late.cancel()

    def children(self) -> list[psutil.Process]:
        """Every process of this run except the launcher."""
        return [p for p in psutil.process_iter(["cmdline"]) if self._is_ours(p) and p.pid != self.process.pid]

    def _is_ours(self, process: psutil.Process) -> bool:
        return any(str(self.run / "roles") in word for word in process.info["cmdline"] or [])

    def child(self, role: str) -> psutil.Process:
        """The process of one role."""
        return next(p for p in self.children() if f"/{role}/" in " ".join(p.info["cmdline"]))

    def nothing_left(self, within_s: float = 15.0) -> bool:
        """True once no process of the run is alive; polls because only a parent can wait for a process."""
        deadline = time.monotonic() + within_s
        while self.children():
            if time.monotonic() > deadline:
                return False
            psutil.wait_procs(self.children(), timeout=0.5)
        return True


def train(run: Path, changes: Sequence[str], *options: str) -> str:
    """Run to the end, which must be a success; returns the output."""
    code, said = MoraTrain(run, changes, *options).finish()
    assert code == 0, said
    return said
