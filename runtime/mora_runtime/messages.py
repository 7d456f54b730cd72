"""All messages, with their direction. What a frame decodes to; nothing else ever crosses a socket.

Fields are checked by type when a message is made from wire values, so a message in hand is well-formed. A tensor on the
wire is a `WireTensor`: who frees it is its sender, once every lease on it has come back by RELEASE.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from mora_runtime.errors import FrameError

PROTOCOL_VERSION = 1


@dataclass(frozen=True, slots=True)
class WireTensor:
    """A reference to a tensor in a segment of `owner`, leased to the receiver under `lease`.

    dtype: code of `tensor_meta.DTYPES`; shape: dense, C order; offset: 64-byte aligned; device: CPU memory.
    """

    lease: int
    owner: str
    segment: int
    offset: int
    nbytes: int
    dtype: int
    shape: tuple[int, ...]


WireValue = None | bool | int | float | str | WireTensor | list[Any]


@dataclass(frozen=True, slots=True)
class Hello:
    """client -> server: first message of every connection."""

    protocol: int
    name: str  # identity of the client's node


@dataclass(frozen=True, slots=True)
class Welcome:
    """server -> client: answer to HELLO. `token` binds the side socket to this connection."""

    protocol: int
    name: str  # identity of the server's node
    environment: str
    lock_hash: str
    agents: dict[str, list[str]]  # agent -> methods
    token: str


@dataclass(frozen=True, slots=True)
class Call:
    """client -> server: run a method. At most once per id; ids of one client increase."""

    id: int
    agent: str
    method: str
    arguments: dict[str, Any]
    grad: list[str] | None  # tensor arguments that need a gradient; [] = only the agent's parameters; None = no graph
    released: list[int]


@dataclass(frozen=True, slots=True)
class Backward:
    """client -> server: backward of one ticket, gradients by output name."""

    id: int
    ticket: int
    grads: dict[str, Any]
    released: list[int]


@dataclass(frozen=True, slots=True)
class Result:
    """server -> client: values of a CALL or input gradients of a BACKWARD. `compute_ns`: time inside the agent."""

    id: int
    values: dict[str, Any]
    ticket: int | None
    compute_ns: int
    released: list[int]


@dataclass(frozen=True, slots=True)
class Failure:
    """server -> client: the call with this id failed; `code` from the closed table of `errors`."""

    id: int
    code: str
    text: str
    released: list[int]


@dataclass(frozen=True, slots=True)
class Drop:
    """client -> server: these tickets are forgotten. No answer."""

    tickets: list[int]
    released: list[int]


@dataclass(frozen=True, slots=True)
class Release:
    """either way: these leases on the receiver's tensors are over. No answer."""

    released: list[int]


@dataclass(frozen=True, slots=True)
class Ping:
    """client -> server's control socket."""

    id: int


@dataclass(frozen=True, slots=True)
class Pong:
    """server's control socket -> client: alive, and what it is doing. Answered while an agent computes."""

    id: int
    busy: str  # agent.method that runs now, or empty
    busy_ns: int
    num_calls: int
    num_tickets: int
    num_slots: int
    arena_nbytes: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """client -> server's control socket: the call that runs now shall stop at its next step. Answered by PONG."""

    id: int
    call: int


Message = Hello | Welcome | Call | Backward | Result | Failure | Drop | Release | Ping | Pong | Cancel
KINDS: tuple[type[Message], ...] = typing.get_args(Message)
KIND_CODES: dict[type[Message], int] = {kind: code for code, kind in enumerate(KINDS)}


def _checker(hint: Any) -> Callable[[object], bool]:
    """A function that says whether a wire value is of the hinted type; made once for each field."""
    if hint is Any:
        return lambda value: True
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        options = [_checker(option) for option in arguments]
        return lambda value: any(fits(value) for fits in options)
    origin = typing.get_origin(hint)
    if origin is list:
        item_fits = _checker(arguments[0])
        return lambda value: isinstance(value, list) and all(map(item_fits, value))
    if origin is dict:
        entry_fits = _checker(arguments[1])
        return lambda value: isinstance(value, dict) and all(type(k) is str and entry_fits(v) for k, v in value.items())
    if hint is int:
        # bool is an int to isinstance, but not on this wire; counters are never negative
        return lambda value: type(value) is int and value >= 0
    return lambda value: type(value) is hint


def _describe(kind: type[Message]) -> tuple[tuple[str, Any, Callable[[object], bool]], ...]:
    hints = typing.get_type_hints(kind)
    return tuple((field.name, hints[field.name], _checker(hints[field.name])) for field in fields(kind))


_FIELDS = {kind: _describe(kind) for kind in KINDS}
_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in KINDS}


def message_from_wire(content: object) -> Message:
    """A message from decoded wire values `[kind, field, ...]`.

    Raises:
        FrameError: unknown kind, missing or extra fields, or a field of the wrong type.
    """
    if not isinstance(content, list) or not content or type(content[0]) is not int:
        raise FrameError("expected a list that starts with the kind of message")
    code, *values = content
    if not 0 <= code < len(KINDS):
        raise FrameError(f"unknown kind of message {code}; expected 0 to {len(KINDS) - 1}")
    kind = KINDS[code]
    check_fields(kind, values)
    return kind(*values)


def check_fields(kind: type[Message], values: list[Any]) -> None:
    """Refuse missing or extra fields and fields of the wrong type (FrameError)."""
    expected = _FIELDS[kind]
    if len(values) != len(expected):
        raise FrameError(f"{kind.__name__}: expected {len(expected)} fields, got {len(values)}")
    for (name, hint, fits), value in zip(expected, values, strict=True):
        if not fits(value):
            raise FrameError(f"{kind.__name__}.{name}: expected {_shown(hint)}, got {type(value).__name__}")


def message_to_wire(message: Message) -> list[Any]:
    """`[kind, field, ...]` of a message."""
    kind = type(message)
    return [KIND_CODES[kind], *[getattr(message, name) for name in _NAMES[kind]]]


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and typing.get_origin(hint) is None else str(hint)
