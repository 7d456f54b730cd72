"""One `mora train` job of tiny models whose processes are killed on purpose, and what it leaves behind."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from mora_launch.jobs.run_status import read_status
from mora_runtime.errors import ConfigurationError

from benchmarks.chaos.points import TINY, SmallJob

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "training.num_steps=50",
    "training.batch_size=2",
    "training.micro_batch_size=1",
    "training.checkpoint_every=1",
    "data.num_clips=4",
    "samples.enabled=false",
    "restarts.max_num=1000",
)
_MARK = "MORA_CHAOS_JOB"  # every process that a job starts inherits it, even if it leaves the job's session


@dataclass(frozen=True)
class Leaks:
    """What a job left behind when it ended; all values should be zero."""

    num_processes: int
    num_segments: int
    num_shm_files: int

    def __bool__(self) -> bool:
        return any((self.num_processes, self.num_segments, self.num_shm_files))


class HurtJob:
    """A job in a run directory; `resume` starts a killed launcher again.

    Args:
        run: its directory.
        faults: specifications for `MORA_FAULT`.
        changes: `--set` changes on top of a small job's.
        kind: which job.
    """

    def __init__(
        self, run: Path, faults: Sequence[str] = (), changes: Sequence[str] = (), kind: SmallJob = TINY
    ) -> None:
        self.run = run
        self._kind = kind
        self._faults = ",".join(faults)
        self._changes = [*SETTINGS, *changes]
        self._mark = secrets.token_hex(8)
        self._shm_before = set(os.listdir("/dev/shm"))
        self._output = run.with_suffix(".out")
        self.process = self._start()

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        settings = [word for change in self._changes for word in ("--set", change)]
        environment = {**os.environ, "MORA_FAULT": self._faults, _MARK: self._mark}
        with open(self._output, "ab") as output:
            return subprocess.Popen(
                [str(ROOT / "mora"), "train", self._kind.config, "--run", str(self.run), *settings, *options],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT, env=environment,
            )  # fmt: skip

    def resume(self) -> None:
        """Start a launcher again after the previous one was killed."""
        self.process.wait(30)
        self.process = self._start("--resume")

    @property
    def said(self) -> str:
        """All output of the job's launchers."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout_s: float) -> int | None:
        """Exit code, or None if the launcher has not ended in time."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def roles(self) -> dict[str, psutil.Process]:
        """Process ids of living processes by role."""
        found = {}
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            if process.info["status"] != psutil.STATUS_ZOMBIE and "--settings" in words:
                path = Path(words[words.index("--settings") + 1])
                if path.is_relative_to(self.run / "roles"):
                    found[path.parent.name] = process
        return found

    def kill(self, role: str) -> bool:
        """Send SIGKILL to a role, or to the `launcher`; False if it has no process."""
        if role == "launcher":
            self.process.send_signal(signal.SIGKILL)
            return True
        process = self.roles().get(role)
        if process is not None:
            process.kill()
        return process is not None

    def steady_num_fds(self) -> int | None:
        """Number of the launcher's descriptors while every role is ready and trains; None at any other moment."""
        try:
            status = read_status(self.run)
            if status.state != "running" or len(status.roles) != len(self._kind.roles):
                return None
            if any(role.state != "ready" for role in status.roles):
                return None
            return psutil.Process(status.launcher_pid).num_fds()
        except (ConfigurationError, psutil.Error):
            return None

    def end(self) -> None:
        """End all processes of the job, whatever its state."""
        self.process.kill()
        self.process.wait(30)
        for process in self._own_processes():
            process.kill()

    def leaks(self, within_s: float = 15.0) -> Leaks:
        """What is left after the launcher's end; waits for processes that are about to end."""
        deadline = time.monotonic() + within_s
        while (left := self._own_processes()) and time.monotonic() < deadline:
            psutil.wait_procs(left, timeout=0.5)
        segments = sum(_num_segments(process) for process in left)
        files = set(os.listdir("/dev/shm")) - self._shm_before
        return Leaks(len(left), segments, len(files))

    def _own_processes(self) -> list[psutil.Process]:
        mark = f"{_MARK}={self._mark}".encode()
        found = []
        for process in psutil.process_iter(["pid", "status"]):
            try:
                content = Path(f"/proc/{process.pid}/environ").read_bytes()
            except OSError:
                continue
            if mark in content.split(b"\0") and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found


def _num_segments(process: psutil.Process) -> int:
    try:
        links = [os.readlink(f"/proc/{process.pid}/fd/{name}") for name in os.listdir(f"/proc/{process.pid}/fd")]
    except OSError:
        return 0  # the process has ended meanwhile
    return sum("memfd:" in link for link in links)


def outcome(run: Path) -> dict[str, bytes]:
    """The result of a run: every file of its last checkpoint (except the manifest, which lists their hashes in the
    order in which they were written) and the loss of every step."""
    record = json.loads((run / "checkpoints" / "COMMITTED").read_text())
    folder = run / "checkpoints" / record["folder"]
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [[line[key] for key in ("step", "loss", "gradient_norm", "alpha", "z_norm")] for line in lines]
    return {**files, "losses": json.dumps(losses).encode()}


def differences(mine: dict[str, bytes], theirs: dict[str, bytes]) -> list[str]:
    """Names of results that are not byte-identical."""
    return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
