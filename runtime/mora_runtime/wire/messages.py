"""All messages, with their direction. Every frame decodes to one of them; `wire.doorbell` has the other two packets.

Fields are checked by type when a message is made from wire values, so every decoded message is well-formed. A tensor on
the wire is a `WireTensor` or a `WireDeviceTensor`; its sender frees it once every lease on it has come back (`released`
of a message). A small tensor is an `InlineTensor`, without a lease.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mora_runtime.errors import FrameError

PROTOCOL_VERSION = 6


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
class WireDeviceTensor:
    """A reference to a tensor in a device pool of `owner`, leased to the receiver under `lease`.

    The pool's `DeviceOffer` came through the doorbell before. The other fields are those of `DeviceTensor`.
    """

    lease: int
    owner: str
    pool: int
    event: int
    offset: int
    nbytes: int
    dtype: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InlineTensor:
    """A tensor of a few KiB at most, inside the frame: the receiver's own copy, without a lease.

    dtype: code of `tensor_meta.DTYPES`; data: dense, C order, exactly as many bytes as dtype and shape need.
    """

    dtype: int
    shape: tuple[int, ...]
    data: bytes


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
    """client -> server: run a method. The server runs each id at most once; ids of one client increase.

    onward: tensors of the answer that the client only passes on, with the identity of the process that will read each.
        They are gradients if a backward runs, else values.
    parts: also answer with a PART for each part of the result that the agent reports.
    """

    id: int
    agent: str
    method: str
    arguments: dict[str, Any]
    grad: list[str] | None  # tensor arguments that need a gradient; [] = only the agent's parameters; None = no graph
    output_grads: dict[str, Any] | None  # run backward at once with these; None = keep the graph for BACKWARD
    inputs_first: bool  # of that backward, as in BACKWARD
    released: list[int]
    norms: list[str] | None = None  # of that backward, as in BACKWARD
    onward: dict[str, str] | None = None
    parts: bool = False


class Backward(NamedTuple):
    """client -> server: backward of one ticket, gradients by output name.

    inputs_first: answer with the gradients of the inputs before those of the parameters are computed.
    norms: inputs whose gradients' norms the answer contains, so that a client need not map a gradient for its norm.
    onward: gradients of the answer that the client only passes on, as in CALL.
    """

    id: int
    ticket: int
    grads: dict[str, Any]
    inputs_first: bool
    released: list[int]
    norms: list[str] | None = None
    onward: dict[str, str] | None = None


class Result(NamedTuple):
    """server -> client: values of a CALL; gradients of its inputs if a backward ran. Times are inside the agent.

    norms: ||dL/dx||_2 in float32 for each requested input that a gradient reached.
    """

    id: int
    values: dict[str, Any]
    gradients: dict[str, Any] | None
    ticket: int | None
    forward_ns: int
    backward_ns: int  # up to this answer
    released: list[int]
    norms: dict[str, float] | None = None


class Part(NamedTuple):
    """server -> client: what a CALL that is still running has made so far. Its RESULT or FAILURE follows."""

    id: int
    values: dict[str, Any]
    released: list[int]


class Failure(NamedTuple):
    """server -> client: the call with this id failed; `code` is one of `errors.BY_CODE`."""

    id: int
    code: str
    text: str
    released: list[int]


class Drop(NamedTuple):
    """client -> server: free the graphs of these tickets. No answer."""

    tickets: list[int]
    released: list[int]


class Release(NamedTuple):
    """either way: these leases on the receiver's tensors have ended. No answer."""

    released: list[int]


class PoolOpened(NamedTuple):
    """either way: the process `reader` has opened a device pool of `owner` and can read tensors in it. No answer.

    A client passes it on from the reader's server to the owner's.
    """

    owner: str
    pool: int
    reader: str


class Ping(NamedTuple):
    """client -> server's control socket: ask for a PONG."""

    id: int


class Pong(NamedTuple):
    """server's control socket -> client: what the server is doing. Sent even while an agent computes."""

    id: int
    busy: str  # agent.method that runs now, or empty
    busy_ns: int
    num_calls: int
    num_tickets: int
    activation_nbytes: int  # kept by those tickets
    num_slots: int
    arena_nbytes: int
    spilled_nbytes: int
    step: int  # of the call that runs now, if the agent reports it
    num_steps: int  # 0 = not reported
    memory_nbytes: int  # allocated on the server's device; on CPU the resident memory of the process
    num_inline: int  # tensors sent so far, by their way to the receiver: inside the message,
    num_shared: int  # in shared memory,
    num_device: int  # in memory of the GPU,
    num_staged: int  # from the GPU through shared memory
    num_pool_full: int  # of the staged ones, those that found no room in the device pool
    inline_nbytes: int  # of the tensors sent so far, by their way
    shared_nbytes: int
    device_nbytes: int
    staged_nbytes: int
    in_steps_ns: int  # of all calls that reported steps: the time of the steps and before them,
    after_steps_ns: int  # and the time after the last step of each clip, which is decoding


class Cancel(NamedTuple):
    """client -> server's control socket: stop a call, or one sample of it, at its next step. Answered by PONG."""

    id: int
    call: int
    sample: int | None = None  # of a batch, whose other samples continue; None = the whole call


Message = (
    Hello | Welcome | Call | Backward | Result | Failure | Drop | Release | Ping | Pong | Cancel | PoolOpened | Part
)
# The first value of every frame. A code is never given to another kind; a new kind takes the next free one.
KIND_CODES: dict[type[Message], int] = {
    Hello: 0,
    Welcome: 1,
    Call: 2,
    Backward: 3,
    Result: 4,
    Failure: 5,
    Drop: 6,
    Release: 7,
    Ping: 8,
    Pong: 9,
    Cancel: 10,
    PoolOpened: 11,
    Part: 12,
}
_KINDS = {code: kind for kind, code in KIND_CODES.items()}


def _checker(hint: Any) -> Callable[[object], bool]:
    """Build a function that tells whether a wire value has the hinted type; called once for each field."""
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
    """Which values a field of a message accepts."""

    kinds: frozenset[type]  # a quick test: values of exactly these types fit; `fits` decides about others
    fits: Callable[[object], bool]


def _field(hint: Any) -> _Field:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return _Field(frozenset(option for option in options if option in _SIMPLE), _checker(hint))


_SIMPLE = (str, bool, types.NoneType)
_FIELDS: dict[type[Message], tuple[_Field, ...]] = {
    kind: tuple(_field(hint) for hint in typing.get_type_hints(kind).values()) for kind in KIND_CODES
}


def message_from_wire(content: object) -> Message:
    """Build a message from decoded wire values `[kind, field, ...]`.

    Raises:
        FrameError: unknown kind, missing or extra fields, or a field of the wrong type.
    """
    if type(content) is not list or not content or type(content[0]) is not int:
        raise FrameError("expected a list that starts with the kind of message")
    code, *values = content
    if code not in _KINDS:
        raise FrameError(f"unknown kind of message {code}; expected 0 to {max(_KINDS)}")
    kind = _KINDS[code]
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
    """Convert a message to its wire values `[kind, field, ...]`."""
    return [KIND_CODES[type(message)], *message]


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and typing.get_origin(hint) is None else str(hint)
