"""All messages, with their direction. What a frame decodes to; nothing else ever crosses a socket.

Fields are checked by type when a message is made from wire values, so a message in hand is well-formed. A tensor on the
wire is a `WireTensor`: who frees it is its sender, once every lease on it has come back by RELEASE.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mora_runtime.errors import FrameError

PROTOCOL_VERSION = 4


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


@dataclass(frozen=True, slots=True)
class InlineTensor:
    """A tensor of a few KiB at most, in the frame itself: the receiver's own copy, with nobody to give it back to.

    dtype: code of `tensor_meta.DTYPES`; data: dense, C order, exactly as many bytes as dtype and shape make.
    """

    dtype: int
    shape: tuple[int, ...]
    data: bytes


WireValue = None | bool | int | float | str | WireTensor | InlineTensor | list[Any]


class Hello(NamedTuple):
    """client -> server: first message of every connection."""

    protocol: int
    name: str  # identity of the client's session


class Welcome(NamedTuple):
    """server -> client: answer to HELLO. `token` binds the doorbell to this connection."""

    protocol: int
    name: str  # identity of the server's session
    environment: str
    lock_hash: str
    agents: dict[str, list[str]]  # agent -> methods
    token: str


class Call(NamedTuple):
    """client -> server: run a method. At most once per id; ids of one client increase."""

    id: int
    agent: str
    method: str
    arguments: dict[str, Any]
    grad: list[str] | None  # tensor arguments that need a gradient; [] = only the agent's parameters; None = no graph
    output_grads: dict[str, Any] | None  # run backward at once with these; None = keep the graph for a BACKWARD
    inputs_first: bool  # of that backward, as in BACKWARD
    released: list[int]
    norms: list[str] | None = None  # of that backward, as in BACKWARD


class Backward(NamedTuple):
    """client -> server: backward of one ticket, gradients by output name.

    inputs_first: answer with the gradients of the inputs before those of the parameters are computed.
    norms: inputs whose gradients' norms come with the answer, so that a client need not map a gradient for its norm.
    """

    id: int
    ticket: int
    grads: dict[str, Any]
    inputs_first: bool
    released: list[int]
    norms: list[str] | None = None


class Result(NamedTuple):
    """server -> client: values of a CALL; gradients of its inputs where a backward ran. Times are inside the agent.

    norms: ||dL/dx||_2 in float32 of the inputs that were asked for and reached by a gradient.
    """

    id: int
    values: dict[str, Any]
    gradients: dict[str, Any] | None
    ticket: int | None
    forward_ns: int
    backward_ns: int  # up to this answer
    released: list[int]
    norms: dict[str, float] | None = None


class Failure(NamedTuple):
    """server -> client: the call with this id failed; `code` from the closed table of `errors`."""

    id: int
    code: str
    text: str
    released: list[int]


class Drop(NamedTuple):
    """client -> server: these tickets are forgotten. No answer."""

    tickets: list[int]
    released: list[int]


class Release(NamedTuple):
    """either way: these leases on the receiver's tensors are over. No answer."""

    released: list[int]


class Ping(NamedTuple):
    """client -> server's control socket."""

    id: int


class Pong(NamedTuple):
    """server's control socket -> client: alive, and what it is doing. Answered while an agent computes."""

    id: int
    busy: str  # agent.method that runs now, or empty
    busy_ns: int
    num_calls: int
    num_tickets: int
    activation_nbytes: int  # kept by those tickets
    num_slots: int
    arena_nbytes: int
    spilled_nbytes: int
    step: int  # of the call that runs now, where it says
    num_steps: int  # 0 = it does not say
    memory_nbytes: int  # allocated on the server's device; resident memory of the process where that is the CPU


class Cancel(NamedTuple):
    """client -> server's control socket: a call, or one sample of it, shall stop at its next step. Answered by PONG."""

    id: int
    call: int
    sample: int | None = None  # of a batch: the others go on; None = the whole call


Message = Hello | Welcome | Call | Backward | Result | Failure | Drop | Release | Ping | Pong | Cancel
KINDS: tuple[type[Message], ...] = typing.get_args(Message)
KIND_CODES: dict[type[Message], int] = {kind: code for code, kind in enumerate(KINDS)}


def _checker(hint: Any) -> Callable[[object], bool]:
    """A function that says whether a wire value is of the hinted type; made once for each field."""
    if hint is Any:
        return lambda value: True
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        (fits,) = [_checker(option) for option in arguments if option is not types.NoneType]
        return lambda value: value is None or fits(value)
    origin = typing.get_origin(hint)
    if origin is list:
        item_fits = _checker(arguments[0])
        return lambda value: type(value) is list and all(map(item_fits, value))
    if origin is dict:
        is_text = _checker(arguments[0])
        if arguments[1] is Any:
            return lambda value: type(value) is dict and all(map(is_text, value))
        entry_fits = _checker(arguments[1])
        return lambda value: type(value) is dict and all(map(is_text, value)) and all(map(entry_fits, value.values()))
    if hint is int:
        # bool is an int to isinstance, but not on this wire; counters are never negative
        return lambda value: type(value) is int and value >= 0
    return lambda value: type(value) is hint


class _Field(NamedTuple):
    """What a field of a message may hold."""

    kinds: frozenset[type]  # values of exactly these types fit; others may
    fits: Callable[[object], bool]


def _field(hint: Any) -> _Field:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return _Field(frozenset(option for option in options if option in _SIMPLE), _checker(hint))


_SIMPLE = (str, bool, types.NoneType)
_FIELDS: dict[type[Message], tuple[_Field, ...]] = {
    kind: tuple(_field(hint) for hint in typing.get_type_hints(kind).values()) for kind in KINDS
}


def message_from_wire(content: object) -> Message:
    """A message from decoded wire values `[kind, field, ...]`.

    Raises:
        FrameError: unknown kind, missing or extra fields, or a field of the wrong type.
    """
    if type(content) is not list or not content or type(content[0]) is not int:
        raise FrameError("expected a list that starts with the kind of message")
    code, *values = content
    if not 0 <= code < len(KINDS):
        raise FrameError(f"unknown kind of message {code}; expected 0 to {len(KINDS) - 1}")
    kind = KINDS[code]
    check_fields(kind, values)
    return kind(*values)


def check_fields(kind: type[Message], values: Sequence[object]) -> None:
    """Refuse missing or extra fields and fields of the wrong type (FrameError)."""
    fields = _FIELDS[kind]
    if len(values) != len(fields):
        raise FrameError(f"{kind.__name__}: expected {len(fields)} fields, got {len(values)}")
    for (kinds, fits), value in zip(fields, values, strict=True):
        if type(value) not in kinds and not fits(value):
            raise _wrong_field(kind, values)


def _wrong_field(kind: type[Message], values: Sequence[object]) -> FrameError:
    checked = zip(typing.get_type_hints(kind).items(), _FIELDS[kind], values, strict=True)
    name, hint, value = next((name, hint, value) for (name, hint), field, value in checked if not field.fits(value))
    return FrameError(f"{kind.__name__}.{name}: expected {_shown(hint)}, got {type(value).__name__}")


def message_to_wire(message: Message) -> list[Any]:
    """`[kind, field, ...]` of a message."""
    return [KIND_CODES[type(message)], *message]


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and typing.get_origin(hint) is None else str(hint)
