"""Checks of gradients against finite differences: in z, in the inputs and in two parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mora_environment.conformance.finite_differences import Tolerances, disagreement
from mora_environment.conformance.outcome import CheckFailed, expect
from mora_environment.conformance.subject import Subject
from mora_environment.promised_methods import Promise

# Also a module in float64 has inputs and outputs that an agent rounds to float32.
_TOLERANCES = {torch.float64: Tolerances(5e-3, 5e-2), torch.float32: Tolerances(2e-2, 0.1)}


def gradients_equal_differences(subject: Subject, promise: Promise) -> str:
    """Backward agrees with finite differences, in float64 if the agent's module can be cast, else in float32."""
    try:
        with _cast_to_double(subject):
            return _checked(subject, promise, torch.float64)
    except _CannotCast:
        return _checked(subject, promise, torch.float32)


class _CannotCast(Exception):
    """The agent computes in float32 only."""


@contextmanager
def _cast_to_double(subject: Subject) -> Iterator[None]:
    module = subject.agent.module()
    if module is None:
        raise _CannotCast
    kept = {id(tensor): tensor.data for tensor in _tensors_of(module)}
    module.double()
    try:
        yield
    finally:
        for tensor, data in zip(_tensors_of(module), kept.values(), strict=True):
            tensor.data, tensor.grad = data, None


def _tensors_of(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _checked(subject: Subject, promise: Promise, dtype: torch.dtype) -> str:
    scalar = _Scalar(subject, promise, dtype)
    parameters = _parameters(subject.agent.module())
    if not scalar.tensors and not parameters:
        return "it has neither z, nor inputs, nor parameters"
    leaves = {name: value.clone().requires_grad_(True) for name, value in scalar.tensors.items()}
    try:
        value = scalar(leaves)
    except (RuntimeError, TypeError, ValueError) as error:
        if dtype == torch.float64:
            raise _CannotCast from error
        raise
    expect(value.requires_grad, "the result does not require a gradient, although z or the inputs do")
    value.backward()  # type: ignore[no-untyped-call]
    worst = 0.0
    for seed, (name, leaf) in enumerate([*leaves.items(), *parameters.items()]):
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.detach().clone()
        leaf.grad = None
        function = _with_input(scalar, name) if name in leaves else _with_parameter(scalar, leaf)
        found, told = disagreement(function, leaf.detach().clone(), gradient, _TOLERANCES[dtype], seed)
        if told is not None:
            raise CheckFailed(f"the gradient in {name} is wrong: {told}")
        worst = max(worst, found)
    for parameter in parameters.values():
        parameter.grad = None
    shown, limit = str(dtype).removeprefix("torch."), _TOLERANCES[dtype].along_gradient
    return f"{shown}, in {', '.join([*leaves, *parameters])}: error {worst:.1g}, at most {limit:g}"


class _Scalar:
    """A promised method as a scalar: its outputs, weighted at random and added up, with its loss.

    Args:
        dtype: of z and the inputs.
    """

    def __init__(self, subject: Subject, promise: Promise, dtype: torch.dtype) -> None:
        self._method = getattr(subject.agent, promise.method)
        arguments = subject.arguments(promise, [0])
        self.tensors: dict[str, torch.Tensor] = {
            name: value.detach().to(dtype)
            for name, value in arguments.items()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        }
        self._others = {name: value for name, value in arguments.items() if name not in self.tensors}

    def __call__(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        returned: dict[str, Any] = self._method(**tensors, **self._others)
        found = {name: value for name, value in returned.items() if isinstance(value, torch.Tensor)}
        parts = [(found[name].double() * _weights(found[name])).sum() for name in sorted(found)]
        total: torch.Tensor = torch.stack(parts).sum()
        return total


def _weights(like: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(like.numel())
    return torch.randn(like.shape, generator=generator, dtype=torch.float64) / math.sqrt(max(1, like.numel()))


def _parameters(module: torch.nn.Module | None) -> dict[str, torch.nn.Parameter]:
    """Two of the module's parameters: one from its middle and its last."""
    if module is None:
        return {}
    trained = [(name, each) for name, each in module.named_parameters() if each.requires_grad]
    chosen = {(len(trained) - 1) // 2, len(trained) - 1} if trained else set()
    return {f"parameter {trained[at][0]}": trained[at][1] for at in sorted(chosen)}


def _with_input(scalar: _Scalar, name: str) -> Callable[[torch.Tensor], float]:
    def value(tensor: torch.Tensor) -> float:
        with torch.no_grad():
            return float(scalar({**scalar.tensors, name: tensor}))

    return value


def _with_parameter(scalar: _Scalar, parameter: torch.Tensor) -> Callable[[torch.Tensor], float]:
    def value(tensor: torch.Tensor) -> float:
        kept = parameter.data
        parameter.data = tensor
        try:
            with torch.no_grad():
                return float(scalar(scalar.tensors))
        finally:
            parameter.data = kept

    return value
