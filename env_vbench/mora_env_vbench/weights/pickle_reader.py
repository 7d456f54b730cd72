"""Pickles in archives of torch, read by a machine that knows only values and tensors, so nothing can run.

Python's own reader calls whatever a pickle names. This one takes the pickle's instructions apart with `pickletools`
and interprets them itself: a name stays a text, and a call of it gives a tensor, a plain value or nothing. A pickle
that names anything else is refused. A module of a TorchScript archive becomes its attributes; its code is not read.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mora_env_vbench.weights.errors import WeightsRefused
from mora_env_vbench.weights.stored_tensor import Storage, StoredTensor

_MAX_NESTING = 64
_TENSORS = ("torch._utils._rebuild_tensor_v2",)
_MARKS = ("torch._utils._rebuild_parameter", "torch.jit._pickle.restore_type_tag")  # they return their first argument
_LISTS = tuple(f"torch.jit._pickle.build_{kind}list" for kind in ("int", "double", "bool", "tensor"))
_MODULES = "__torch__."  # beginning of the names of TorchScript classes
# Settings and numbers that training scripts store next to weights. Whatever the pickle makes of them is left out.
_LEFT_OUT = ("argparse.", "numpy.", "omegaconf.", "typing.")
_PLAIN_TYPES = ("bool", "complex", "dict", "float", "int", "list", "object", "set", "str", "tuple")
_LEFT_OUT_NAMES = (
    "_codecs.encode",
    "collections.defaultdict",
    "copyreg._reconstructor",
    *(f"builtins.{name}" for name in _PLAIN_TYPES),
)
_STORAGE_TYPES = ("torch.", "Storage")  # beginning and end of their names
_NAMES_IN_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle names."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass
class _Module:
    """A module of a TorchScript archive."""

    attributes: dict[Any, Any] = field(default_factory=dict)


class _LeftOut:
    """What is not needed; it takes entries and elements."""


class _Mark:
    """Where a pickle's list of arguments begins."""


def stored_tensors(content: bytes, owner: str) -> dict[str, StoredTensor]:
    """All tensors of a pickle by the path to them, with dots, such as `state_dict.conv1.weight`.

    Args:
        owner: the file; errors begin with it.

    Raises:
        WeightsRefused: the pickle is damaged, or names anything besides tensors and plain values.
    """
    try:
        tensors: dict[str, StoredTensor] = {}
        _collect(_Machine().result(content), "", tensors, _MAX_NESTING)
        return tensors
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        told = str(error).splitlines()[0] if str(error) else "it is damaged"
        raise WeightsRefused(f"{owner}: expected a file of weights that holds only tensors: {told}") from error


def _collect(value: Any, path: str, tensors: dict[str, StoredTensor], depth: int) -> None:
    if depth == 0:
        raise ValueError(f"expected at most {_MAX_NESTING} levels of nesting")
    if isinstance(value, StoredTensor):
        tensors[path] = value
    children = value.attributes if isinstance(value, _Module) else value
    if isinstance(children, dict):
        for name, child in children.items():
            if isinstance(name, str):
                _collect(child, f"{path}.{name}" if path else name, tensors, depth - 1)


class _Machine:
    """A stack and a memo, as a pickle expects them."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def result(self, content: bytes) -> Any:
        """The value of a whole pickle."""
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("it ends too early")

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the instruction {name}, and a file of weights has no use for that")

    def pop(self) -> Any:
        return self._stack.pop()

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def top(self) -> Any:
        return self._stack[-1]

    def since_mark(self) -> list[Any]:
        """Everything after the last mark, which is taken away with it."""
        start = max(at for at, value in enumerate(self._stack) if isinstance(value, _Mark))
        values = self._stack[start + 1 :]
        del self._stack[start:]
        return values

    def put(self, number: Any) -> None:
        self._memo[len(self._memo) if number is None else number] = self._stack[-1]

    def get(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def tuple_of(self, count: int) -> None:
        values = tuple(self._stack[len(self._stack) - count :])
        if len(values) != count:
            raise ValueError("it is damaged")
        del self._stack[len(self._stack) - count :]
        self._stack.append(values)

    def name(self, module: Any, name: Any) -> None:
        self._stack.append(_checked_name(module, name))

    def call(self) -> None:
        """A call of a name with a tuple of arguments."""
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(_called(function, arguments))

    def build(self) -> None:
        """A state given to an object: attributes of a module; nothing else needs one."""
        state = self._stack.pop()
        if isinstance(self._stack[-1], _Module):
            if not isinstance(state, dict):
                raise ValueError(f"expected the attributes of a module, got {type(state).__name__}")
            self._stack[-1].attributes = state

    def add_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(zip(values[::2], values[1::2], strict=True))
        elif not isinstance(target, _LeftOut):
            raise ValueError(f"expected a dictionary to fill, got {type(target).__name__}")

    def add_elements(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target += values
        elif not isinstance(target, _LeftOut):
            raise ValueError(f"expected a list to fill, got {type(target).__name__}")


def _checked_name(module: Any, name: Any) -> _Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("expected a name")
    text = f"{_NAMES_IN_PYTHON_2.get(module, module)}.{name}"
    known = (*_TENSORS, *_MARKS, *_LISTS, *_LEFT_OUT_NAMES, "collections.OrderedDict", "torch.Size")
    is_storage = text.startswith(_STORAGE_TYPES[0]) and text.endswith(_STORAGE_TYPES[1]) and text.count(".") == 1
    if text not in known and not is_storage and not text.startswith((*_LEFT_OUT, _MODULES)):
        raise ValueError(f"it names `{text}`, and a file of weights has no use for that")
    return _Name(text)


def _called(function: Any, arguments: Any) -> Any:
    if not isinstance(arguments, tuple):
        raise ValueError("expected a call with a tuple of arguments")
    if isinstance(function, _LeftOut):
        return function
    if not isinstance(function, _Name):
        raise ValueError("expected a call of a name")
    if function.text in _TENSORS:
        return StoredTensor.of(arguments)
    if function.text in _MARKS:
        return arguments[0]
    if function.text in (*_LISTS, "torch.Size"):
        return (tuple if function.text == "torch.Size" else list)(arguments[0])
    if function.text == "collections.OrderedDict":
        return dict(*arguments)
    return _Module() if function.text.startswith(_MODULES) else _LeftOut()


_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": _LeftOut,
    "MARK": _Mark,
}


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


def _two(machine: _Machine) -> list[Any]:
    second = machine.pop()
    return [machine.pop(), second]


def _stacked_name(machine: _Machine) -> None:
    name = machine.pop()
    machine.name(machine.pop(), name)


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "DICT": lambda machine, _: machine.push(_pairs(machine.since_mark())),
    "APPEND": lambda machine, _: machine.add_elements([machine.pop()]),
    "APPENDS": lambda machine, _: machine.add_elements(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.add_elements(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.add_items(_two(machine)),
    "SETITEMS": lambda machine, _: machine.add_items(machine.since_mark()),
    "PUT": lambda machine, number: machine.put(number),
    "BINPUT": lambda machine, number: machine.put(number),
    "LONG_BINPUT": lambda machine, number: machine.put(number),
    "MEMOIZE": lambda machine, _: machine.put(None),
    "GET": lambda machine, number: machine.get(number),
    "BINGET": lambda machine, number: machine.get(number),
    "LONG_BINGET": lambda machine, number: machine.get(number),
    "GLOBAL": lambda machine, words: machine.name(*words.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: _stacked_name(machine),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.push(Storage.of(machine.pop())),
}
