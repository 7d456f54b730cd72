"""Fault injection: `MORA_FAULT` makes a role die, stop or get a disk error at a chosen point.

A specification is `<role>:<point>:<n>[:<action>]`, several are joined by commas: the action happens when that role
passes that point for the n-th time since the start of its process. Each fault happens once per run: a marker in
`<run>/faults/` is written before it, so that the restarted role passes unharmed. Without `MORA_FAULT` a point costs one
check of a module variable.

Points are where a death does most harm: between a write and its announcement, between a decision and its effect. The
code that passes a point calls `reach`; each role calls `arm` at start.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mora_runtime.errors import SettingsError
from mora_runtime.process import envvars
from mora_runtime.schema import nearest_name

Action = Literal["kill", "stop", "exit0", "enospc", "eio"]
Kind = Literal["server", "coordinator"]

# The points of a training job, in the order of a step, with the kinds of role that pass them.
POINTS: dict[str, tuple[Kind, ...]] = {
    "before_receive": ("server", "coordinator"),
    "after_receive": ("server", "coordinator"),
    "mapped": ("server", "coordinator"),  # a peer's tensors have become views of its memory
    "mid_forward": ("server",),
    "slot_written": ("server", "coordinator"),  # tensors are in shared memory, but not announced
    "header_sent": ("server", "coordinator"),
    "mid_backward": ("server",),
    "gradient_ready": ("server", "coordinator"),
    "prepared": ("server", "coordinator"),
    "mid_optimizer": ("server", "coordinator"),  # parameters have stepped, their moving average has not
    "committed": ("server", "coordinator"),
    "acked": ("server", "coordinator"),  # the peer has released tensors
    "shard_written": ("server", "coordinator"),
    "fsynced": ("server", "coordinator"),
    "renamed": ("coordinator",),
    "record_replaced": ("coordinator",),
}
_ERRORS = {"enospc": errno.ENOSPC, "eio": errno.EIO}


@dataclass(frozen=True)
class Fault:
    """One fault: `action` happens when `role` passes `point` for the n-th time."""

    role: str  # agent.0
    point: str
    number: int
    action: Action = "kill"

    def __str__(self) -> str:
        return f"{self.role}:{self.point}:{self.number}" + ("" if self.action == "kill" else f":{self.action}")


def parse(text: str) -> tuple[Fault, ...]:
    """Read the value of `MORA_FAULT`.

    Raises:
        SettingsError: names the invalid part and what was expected.
    """
    return tuple(_parse_one(word.strip()) for word in text.split(",") if word.strip())


def _parse_one(word: str) -> Fault:
    parts = word.split(":")
    if len(parts) not in (3, 4) or not all(parts):
        raise SettingsError(f"MORA_FAULT `{word}`: expected role:point:n[:action], for example agent.0:prepared:2")
    role, point, number, action = (*parts, "kill")[:4]
    if point not in POINTS:
        nearest = nearest_name(point, POINTS)
        hint = f"; did you mean `{nearest}`?" if nearest else ""
        raise SettingsError(f"MORA_FAULT `{word}`: no point `{point}`{hint} (known: {', '.join(POINTS)})")
    if not number.isascii() or not number.isdigit() or int(number) < 1:
        raise SettingsError(f"MORA_FAULT `{word}`: expected n as an integer from 1, got `{number}`")
    if action not in get_args(Action):
        raise SettingsError(f"MORA_FAULT `{word}`: no action `{action}` (known: {', '.join(get_args(Action))})")
    return Fault(role, point, int(number), action)  # type: ignore[arg-type]


class FaultPlan:
    """The faults of one process.

    Args:
        folder: where the run's markers are; made if absent.
    """

    def __init__(self, role: str, faults: Sequence[Fault], folder: Path) -> None:
        self._mine = [fault for fault in faults if fault.role == role]
        self._folder = folder
        self._passed: Counter[str] = Counter()
        folder.mkdir(mode=0o700, exist_ok=True)

    def pass_by(self, point: str) -> None:
        """Count one passage of a point, and execute the fault planned for it.

        Raises:
            OSError: the planned action is a disk error.
        """
        self._passed[point] += 1
        for fault in self._mine:
            if fault.point == point and fault.number == self._passed[point] and self._is_first_time(fault):
                _act(fault)

    def _is_first_time(self, fault: Fault) -> bool:
        try:
            os.close(os.open(self._folder / str(fault), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        return True


def _act(fault: Fault) -> None:
    if fault.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.action == "exit0":
        os._exit(0)
    else:
        number = _ERRORS[fault.action]
        raise OSError(number, f"{os.strerror(number)} (MORA_FAULT {fault})")


active: FaultPlan | None = None


def arm(role: str, run: Path) -> None:
    """Read `MORA_FAULT` for this process; call it once at start."""
    global active
    text = envvars.fault()
    active = FaultPlan(role, parse(text), run / "faults") if text else None


def reach(point: str) -> None:
    """Pass a point: execute a fault if one is planned for it."""
    if active is not None:
        active.pass_by(point)


def happened(run: Path) -> list[str]:
    """The specifications of all faults that have happened in a run."""
    folder = run / "faults"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
