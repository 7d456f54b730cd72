"""`<run>/status.json`: the state of a run's processes, written by its launcher for `mora status` and `mora doctor`.

The file is replaced atomically about once a second, so a reader never sees half of it. It outlives the launcher: the
last version says how the run ended or, if the launcher was killed, what the run was doing then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from mora_runtime.errors import ConfigurationError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.files.shown_text import shown_line
from mora_runtime.process.role_messages import Vitals, checked_vitals
from mora_runtime.process.role_process import RoleProcess
from pydantic import BaseModel, ValidationError, field_validator

from mora_launch.jobs.registry.live_runs import listed
from mora_launch.limits import MAX_STATUS_NBYTES

STATUS_FILE = "status.json"
_WRITE_EVERY_S = 0.9
Command = Literal["train", "serve"]
State = Literal["starting", "running", "stopping", "finished", "interrupted", "failed"]
UNFINISHED: tuple[State, ...] = ("starting", "running", "stopping")


class RoleStatus(BaseModel):
    """One process of a run."""

    role: str
    generation: int
    pid: int
    state: Literal["loading", "ready", "ended"]
    last_life_ts: float | None = None  # Unix time of the last sign of life
    exit_cause: str | None = None
    vitals: Vitals = {}

    @field_validator("vitals", mode="before")
    @classmethod
    def _are_vitals(cls, found: Any) -> Vitals:
        return checked_vitals(found)  # they are displayed, so their types must be right


class Incident(BaseModel):
    """One death in a run and the reaction to it."""

    ts: float
    cause: str
    then: str


class RunStatus(BaseModel):
    """The content of the file."""

    command: Command
    state: State
    launcher_pid: int
    started_ts: float
    written_ts: float
    stops_by_ts: float | None = None  # Unix time until which a stopping server waits for accepted work
    generation: int = 1
    cause: str | None = None  # of a failure
    roles: list[RoleStatus] = []
    incidents: list[Incident] = []


class StatusWriter:
    """Keeps the file up to date; as a context manager it also lists the run as alive, and records how it ended, unless
    `end` was called.

    Args:
        run: run directory.
        command: command of the launcher.
    """

    def __init__(self, run: Path, command: Command) -> None:
        self._path = run / STATUS_FILE
        self._listed = listed(run)
        now_ts = time.time()
        self._next_s = 0.0
        self.status = RunStatus(
            command=command, state="starting", launcher_pid=os.getpid(), started_ts=now_ts, written_ts=now_ts
        )

    def __enter__(self) -> StatusWriter:
        self.write()
        self._listed.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listed.__exit__(None, None, None)
        if isinstance(error, KeyboardInterrupt):
            self.end("interrupted", str(error) or None)
        elif error is not None:
            self.end("failed", str(error) or type(error).__name__)
        elif self.status.state in UNFINISHED:
            self.end("finished")

    def observe(self, children: Sequence[RoleProcess]) -> None:
        """Record the children's state and write the file, at most about once a second."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _WRITE_EVERY_S
        self._take_in(children)
        self.write()

    def _take_in(self, children: Sequence[RoleProcess]) -> None:
        self.status.roles = [_role_status(child) for child in children]
        if children:
            self.status.generation = max(child.generation for child in children)

    def enter(self, state: State) -> None:
        """Change the state of the run; the next write shows it."""
        self.status.state = state

    def stop_within(self, timeout_s: float) -> None:
        """Record that the run only waits for accepted work, for at most this time; the next write shows it."""
        self.status.stops_by_ts = time.time() + timeout_s
        self.enter("stopping")

    def incident(self, cause: str, then: str) -> None:
        """Record that a role died while the run continues."""
        self.status.incidents.append(Incident(ts=time.time(), cause=cause, then=then))
        self.write()

    def end(self, state: State, cause: str | None = None) -> None:
        """Record the end of the run."""
        self.status.state, self.status.cause = state, cause
        self.status.roles = []
        self.write()

    def write(self) -> None:
        """Replace the file. A failed write is ignored, because a full disk must not end a run over its status."""
        self.status.written_ts = time.time()
        try:
            replace_text(self._path, self.status.model_dump_json(indent=1), synced=False)
        except OSError:
            self._next_s = time.monotonic() + 10 * _WRITE_EVERY_S  # the status is late; `mora status` tells its age


def _role_status(child: RoleProcess) -> RoleStatus:
    ended = child.process.returncode is not None
    late_s = None if child.pulse is None else time.monotonic() - child.pulse.last_life_s
    return RoleStatus(
        role=child.role,
        generation=child.generation,
        pid=child.process.pid,
        state="ended" if ended else "ready" if child.is_ready else "loading",
        last_life_ts=None if late_s is None else time.time() - late_s,
        exit_cause=child.exit_cause() if ended else None,
        vitals=child.vitals,
    )


def read_status(run: Path) -> RunStatus:
    """Read a run's status.

    Raises:
        ConfigurationError: the run has no status file, or the file is invalid.
    """
    path = run / STATUS_FILE
    try:
        return RunStatus.model_validate(parse_object(read_foreign(path, MAX_STATUS_NBYTES)))
    except FileNotFoundError:
        raise ConfigurationError(f"{run}: has no {STATUS_FILE}; expected the directory of a run (--run)") from None
    except (OSError, ValueError, ValidationError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {shown_line(str(error))}") from None
