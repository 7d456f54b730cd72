"""Faults on demand: `MORA_FAULT` makes a role die, stop or meet a full disk exactly where it matters.

A specification is `<role>:<point>:<n>[:<action>]`, several are joined by commas: what happens when that role passes
that point for the n-th time, counted from the start of its process. Each happens once in the life of a run: a marker
in `<run>/faults/` is written before it, so that the role started again passes unharmed. Without `MORA_FAULT` a point
costs one look at a module's variable.

Points stand where a death hurts most: between a write and its announcement, between a decision and its effect. Called
by the code that passes them; armed by each role's start.
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

# Where roles of a training job can be hit, in the order of a step, with the kinds of role that pass there.
POINTS: dict[str, tuple[Kind, ...]] = {
    "before_receive": ("server", "coordinator"),
    "after_receive": ("server", "coordinator"),
    "mapped": ("server", "coordinator"),  # tensors of a peer are views of its memory now
    "mid_forward": ("server",),
    "slot_written": ("server", "coordinator"),  # tensors lie in shared memory, and nobody knows yet
    "header_sent": ("server", "coordinator"),
    "mid_backward": ("server",),
    "gradient_ready": ("server", "coordinator"),
    "prepared": ("server", "coordinator"),
    "mid_optimizer": ("server", "coordinator"),  # parameters have stepped, their moving average has not
    "committed": ("server", "coordinator"),
    "acked": ("server", "coordinator"),  # the peer has said which tensors it needs no longer
    "shard_written": ("server", "coordinator"),
    "fsynced": ("server", "coordinator"),
    "renamed": ("coordinator",),
    "record_replaced": ("coordinator",),
}
_ERRORS = {"enospc": errno.ENOSPC, "eio": errno.EIO}


@dataclass(frozen=True)
class Fault:
    """One fault: `role` is hit when it passes `point` for the n-th time."""

    role: str  # image.0
    point: str
    number: int
    action: Action = "kill"

    def __str__(self) -> str:
        return f"{self.role}:{self.point}:{self.number}" + ("" if self.action == "kill" else f":{self.action}")


def parse(text: str) -> tuple[Fault, ...]:
    """Read the value of `MORA_FAULT`.

    Raises:
        SettingsError: naming the part that does not fit and what was expected.
    """
    return tuple(_parse_one(word.strip()) for word in text.split(",") if word.strip())


def _parse_one(word: str) -> Fault:
    parts = word.split(":")
    if len(parts) not in (3, 4) or not all(parts):
        raise SettingsError(f"MORA_FAULT `{word}`: expected role:point:n or role:point:n:action, as image.0:prepared:2")
    role, point, number, action = (*parts, "kill")[:4]
    if point not in POINTS:
        nearest = nearest_name(point, POINTS)
        hint = f"; did you mean `{nearest}`?" if nearest else ""
        raise SettingsError(f"MORA_FAULT `{word}`: no point `{point}`{hint} (known: {', '.join(POINTS)})")
    if not number.isascii() or not number.isdigit() or int(number) < 1:
        raise SettingsError(f"MORA_FAULT `{word}`: expected a passage counted from 1, got `{number}`")
    if action not in get_args(Action):
        raise SettingsError(f"MORA_FAULT `{word}`: no action `{action}` (known: {', '.join(get_args(Action))})")
    return Fault(role, point, int(number), action)  # type: ignore[arg-type]


class FaultPlan:
    """The faults of one process.

    Args:
        folder: of the run's markers, made when absent.
    """

    def __init__(self, role: str, faults: Sequence[Fault], folder: Path) -> None:
        self._mine = [fault for fault in faults if fault.role == role]
        self._folder = folder
        self._passed: Counter[str] = Counter()
        folder.mkdir(mode=0o700, exist_ok=True)

    def pass_by(self, point: str) -> None:
        """Count one passage, and do what is planned for it.

        Raises:
            OSError: the planned action is a disk that refuses.
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
    """Read `MORA_FAULT` for this process; called once, at start."""
    global active
    text = envvars.fault()
    active = FaultPlan(role, parse(text), run / "faults") if text else None


def reach(point: str) -> None:
    """This process passes a point where it could be hit."""
    if active is not None:
        active.pass_by(point)


def happened(run: Path) -> list[str]:
    """The specifications that have come true in a run."""
    folder = run / "faults"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
