"""Messages between a role process and its launcher: JSON lines up, single words down. Encoded and decoded only here.

    role -> launcher    Ready     this role serves
                        Failed    why this role ends, and whether starting it again could help
                        Beat      it is alive; vitals: what it is doing
    launcher -> role    go, stop

A role process may be faulty, so the decoder is total: any bytes give messages or one BadRoleMessage, and every line and
value has a bound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mora_runtime.files.foreign_json import parse_object
from mora_runtime.files.shown_text import shown, shown_line
from mora_runtime.limits import MAX_NUM_VITALS, MAX_ROLE_ERROR_LENGTH, MAX_ROLE_LINE_NBYTES, MAX_VITAL_LENGTH

Vitals = dict[str, str | int | float | bool | None]
GO = b"go"
STOP = b"stop"
_MAX_DEPTH = 3
_MAX_NUM_VALUES = MAX_ROLE_LINE_NBYTES  # the parser also counts commas and brackets inside texts


class BadRoleMessage(ValueError):
    """The bytes are not a message; the text says why, in one line."""


@dataclass(frozen=True)
class Ready:
    """This role serves."""


@dataclass(frozen=True)
class Failed:
    """Why this role ends; the text is for a person and has no control characters."""

    error: str
    is_recoverable: bool = False


@dataclass(frozen=True)
class Beat:
    """A sign of life.

    Attributes:
        vitals: by name; sizes (`..._nbytes`), counts (`num_...`) and `step` are integers, times (`..._s`) numbers.
    """

    vitals: Vitals = field(default_factory=dict)


RoleMessage = Ready | Failed | Beat


def encode(message: RoleMessage) -> bytes:
    """Encode a message as one line; texts are cut to the decoder's limits."""
    content: dict[str, Any]
    if isinstance(message, Ready):
        content = {"event": "ready"}
    elif isinstance(message, Failed):
        error = shown(message.error)[:MAX_ROLE_ERROR_LENGTH]
        content = {"event": "failed", "error": error, "is_recoverable": message.is_recoverable}
    else:
        vitals = {name: _sent(value) for name, value in list(message.vitals.items())[:MAX_NUM_VITALS]}
        content = {"event": "beat", "vitals": vitals}
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _sent(value: Any) -> Any:
    if isinstance(value, str):
        return shown_line(value, MAX_VITAL_LENGTH)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decode(line: bytes) -> RoleMessage:
    """Decode one line. Raises: BadRoleMessage: it is not a message."""
    try:
        content = parse_object(line, max_depth=_MAX_DEPTH, max_num_values=_MAX_NUM_VALUES)
    except ValueError as error:
        raise BadRoleMessage(shown_line(str(error), 200)) from None
    event = content.pop("event", None)
    if event == "ready":
        _check_keys(content, set())
        return Ready()
    if event == "failed":
        _check_keys(content, {"error", "is_recoverable"})
        return _failed(content["error"], content["is_recoverable"])
    if event == "beat":
        _check_keys(content, {"vitals"})
        return Beat(checked_vitals(content["vitals"]))
    raise BadRoleMessage(f"unknown event {_short(event)}")


def _check_keys(content: dict[str, Any], expected: set[str]) -> None:
    if differing := sorted(content.keys() ^ expected):
        raise BadRoleMessage(f"the key {_short(differing[0])} is unknown or missing")


def _failed(error: Any, is_recoverable: Any) -> Failed:
    if not isinstance(error, str) or len(error) > MAX_ROLE_ERROR_LENGTH:
        raise BadRoleMessage(f"`error` must be a text of at most {MAX_ROLE_ERROR_LENGTH} characters")
    if not isinstance(is_recoverable, bool):
        raise BadRoleMessage(f"`is_recoverable` must be true or false, got {_short(is_recoverable)}")
    return Failed(shown(error), is_recoverable)


def checked_vitals(found: Any) -> Vitals:
    """Check vitals and make them safe to print. Raises: BadRoleMessage: too many, or an invalid name or value."""
    if not isinstance(found, dict) or len(found) > MAX_NUM_VITALS:
        raise BadRoleMessage(f"`vitals` must be an object of at most {MAX_NUM_VITALS} entries")
    for name, value in found.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_VITAL_LENGTH or shown_line(name) != name:
            raise BadRoleMessage(f"`vitals` has the name {_short(name)}; expected a short plain text")
        if not _fits(name, value):
            raise BadRoleMessage(f"vital {_short(name)}: the value {_short(value)} has the wrong type or range")
    return {name: shown_line(value, MAX_VITAL_LENGTH) if isinstance(value, str) else value for name, value in
            found.items()}  # fmt: skip


def _fits(name: str, value: Any) -> bool:
    if name.endswith("_nbytes") or name.startswith("num_") or name == "step":
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    if name.endswith("_s"):
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
    if isinstance(value, str):
        return len(value) <= MAX_VITAL_LENGTH
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) < 1 << 63)


def _short(value: Any) -> str:
    return shown_line(ascii(value), 60)


class Lines:
    """Splits a stream that arrives in pieces into lines. Buffers at most one line, and scans no byte twice."""

    def __init__(self, max_nbytes: int = MAX_ROLE_LINE_NBYTES) -> None:
        self._max_nbytes = max_nbytes
        self._begun = bytearray()

    def take(self, piece: bytes) -> Iterator[bytes]:
        """Add a piece and yield the lines that it completes. Raises: BadRoleMessage: a line is too long."""
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            self._keep(piece[start:end])
            line = bytes(self._begun)
            self._begun.clear()
            start = end + 1
            yield line
        self._keep(piece[start:])

    def _keep(self, part: bytes) -> None:
        if len(self._begun) + len(part) > self._max_nbytes:
            self._begun.clear()
            raise BadRoleMessage(f"a line of more than {self._max_nbytes} bytes")
        self._begun += part
