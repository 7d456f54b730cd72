"""Agents: models with a small closed table of methods. Agents never see a socket, a frame or a segment."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import torch

from mora_runtime.errors import BadArgument, UnknownMethod

MethodT = TypeVar("MethodT", bound=Callable[..., Any])
_MARK = "__mora_method__"


@dataclass(frozen=True)
class _Mark:
    """What `remote` stores on a function."""

    differentiable: bool
    host_arguments: frozenset[str]


@dataclass(frozen=True)
class Method:
    """One entry of an agent's table."""

    name: str
    differentiable: bool
    arguments: Mapping[str, Any]  # name -> annotation
    fits: Mapping[str, Callable[[object], bool]]  # name -> whether a value is of its annotation
    required: frozenset[str]
    on_host: frozenset[str]  # arguments whose tensors stay on the CPU


@overload
def remote(method: MethodT) -> MethodT: ...
@overload
def remote(*, differentiable: bool = ..., host_arguments: Sequence[str] = ...) -> Callable[[MethodT], MethodT]: ...
def remote(method: MethodT | None = None, *, differentiable: bool = False, host_arguments: Sequence[str] = ()) -> Any:
    """Put a method into the agent's table. Arguments are passed by name and checked against their annotations.

    Allowed: Tensor, bool, int, float, str, list of these, and `| None`. Return a dict of such values, or one value,
    which the caller gets as `value`. A call of a differentiable method can have the server keep a graph for backward.

    Args:
        host_arguments: names of arguments whose tensors the method gets on the CPU; the others are moved to the
            server's device before the call.
    """

    def mark(function: MethodT) -> MethodT:
        setattr(function, _MARK, _Mark(differentiable, frozenset(host_arguments)))
        return function

    return mark if method is None else mark(method)


class Agent:
    """Base of all agents."""

    def module(self) -> torch.nn.Module | None:
        """The module whose parameters can train, if there is one."""
        return None

    def close(self) -> None:
        """Called once when the server ends."""


_TABLES: dict[type[Agent], dict[str, Method]] = {}


def methods_of(kind: type[Agent]) -> Mapping[str, Method]:
    """The method table of a class of agents, built once."""
    if kind not in _TABLES:
        _TABLES[kind] = _make_table(kind)
    return _TABLES[kind]


def _make_table(kind: type[Agent]) -> dict[str, Method]:
    table: dict[str, Method] = {}
    for name, function in inspect.getmembers(kind, inspect.isfunction):
        mark = getattr(function, _MARK, None)
        if mark is not None:
            table[name] = _describe(name, function, mark)
    return table


def _describe(name: str, function: Callable[..., Any], mark: _Mark) -> Method:
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    required = frozenset(p.name for p in parameters if p.default is inspect.Parameter.empty)
    arguments = {p.name: hints.get(p.name, Any) for p in parameters}
    unknown = mark.host_arguments.difference(arguments)
    if unknown:
        raise TypeError(f"{function.__qualname__}: host_arguments names {sorted(unknown)}; it has {list(arguments)}")
    fits = {name: _fits(hint) for name, hint in arguments.items()}
    return Method(name, mark.differentiable, arguments, fits, required, mark.host_arguments)


class ModuleAgent(Agent):
    """Hosts any torch module; tensors go in and out in the order of forward's arguments and results.

    Args:
        optimizer: of the module's parameters, for `step`; None = plain gradient descent.
    """

    def __init__(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        self._module = module
        self._optimizer = optimizer

    def module(self) -> torch.nn.Module:
        """The hosted module."""
        return self._module

    @remote(differentiable=True)
    def forward(self, inputs: list[torch.Tensor]) -> dict[str, Any]:
        """Run the module's forward; `outputs` is a list even if the module returns one tensor.

        `differentiable` tells for each output whether it has a gradient to pass back.
        """
        outputs = self._module(*inputs)
        listed = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
        return {"outputs": listed, "differentiable": [output.requires_grad for output in listed]}

    @remote
    def step(self, lr: float) -> dict[str, Any]:
        """Step the optimizer with the accumulated gradients, then clear them.

        Raises:
            BadArgument: no parameter of the module trains.
        """
        if self._optimizer is None:
            trained = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
            if not trained:
                raise BadArgument("step: no parameter of the module requires a gradient")
            self._optimizer = torch.optim.SGD(trained, lr=lr)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return {}


def method_of(agent: Agent, agent_name: str, method: str) -> Method:
    """Look up a method in the agent's table; UnknownMethod lists those that exist."""
    table = methods_of(type(agent))
    if method not in table:
        raise UnknownMethod(f"agent `{agent_name}` has no method `{method}`; it has {', '.join(sorted(table))}")
    return table[method]


def check_arguments(where: str, method: Method, arguments: Mapping[str, Any]) -> None:
    """Refuse missing, unknown and wrongly typed arguments (BadArgument names agent.method(argument))."""
    for name in arguments:
        if name not in method.arguments:
            raise BadArgument(f"{where}({name}): no such argument; expected {', '.join(method.arguments) or 'none'}")
    for name in method.required.difference(arguments):
        raise BadArgument(f"{where}({name}): is missing")
    for name, value in arguments.items():
        if not method.fits[name](value):
            hint = method.arguments[name]
            shown = hint.__name__ if isinstance(hint, type) else str(hint)
            raise BadArgument(f"{where}({name}): expected {shown}, got {type(value).__name__}")


def _fits(hint: Any) -> Callable[[object], bool]:
    """Build a function that tells whether a value has the annotated type; called once for each argument."""
    if hint is Any:
        return lambda value: True
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        options = [_fits(option) for option in typing.get_args(hint)]
        return lambda value: any(fits(value) for fits in options)
    if origin is list:
        item_fits = _fits(typing.get_args(hint)[0])
        return lambda value: isinstance(value, list) and all(map(item_fits, value))
    if hint is float:
        return lambda value: type(value) in (float, int)
    if hint is torch.Tensor:
        return lambda value: isinstance(value, torch.Tensor)
    return lambda value: type(value) is hint
