"""The remote methods that an `Interface` promises, and whether an agent has them with the arguments of `protocols`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from mora_runtime import Agent
from mora_runtime.errors import EnvironmentFailed
from mora_runtime.rpc.agent import Method, methods_of

from mora_environment import protocols
from mora_environment.interface import Interface
from mora_environment.kind import Kind


@dataclass(frozen=True)
class Promise:
    """One method that an interface promises."""

    method: str
    arguments: tuple[str, ...]  # a caller passes these by name and no others
    because: str  # the field of the interface
    is_differentiable: bool = False


def promises_of(interface: Interface) -> list[Promise]:
    """All methods that an interface promises."""
    return list(_promises(interface))


def _promises(told: Interface) -> Iterator[Promise]:
    if told.has_text:
        yield _promise(protocols.Text, "encode", told, "has_text")
        yield _promise(protocols.Text, "unload_text_encoder", told, "has_text")
    if told.has_modulation:
        yield _promise(protocols.Modulated, "modulation_rows", told, "has_modulation")
    if told.gives:
        yield _promise(protocols.Transform if told.takes else protocols.Source, "forward", told, "gives", True)
    if told.is_critic:
        yield _promise(protocols.Critic, "score", told, "is_critic")
    if told.has_loss and told.takes:
        yield _promise(protocols.Critic if told.is_critic else protocols.Objective, "loss", told, "has_loss", True)
    if told.needs_targets:
        yield _promise(protocols.Targets, "store_target", told, "needs_targets")
    if told.generates is not None:
        yield _promise(protocols.Generator, "generate", told, "generates")
    if told.has_noise:
        yield _promise(protocols.Noise, "initial_noise", told, "has_noise")
    if told.is_metric:
        yield _promise(protocols.Metric, "describe", told, "is_metric")
        yield _promise(protocols.Metric, "measure", told, "is_metric")


def _promise(protocol: type, method: str, told: Interface, because: str, is_differentiable: bool = False) -> Promise:
    arguments: list[str] = []
    for name in list(inspect.signature(getattr(protocol, method)).parameters)[1:]:
        if name in ("images", "frames") and protocol is not protocols.Metric:  # stand for the agent's own inputs
            arguments += told.takes
        elif name != "target_keys" or (told.needs_targets and told.has_loss):
            arguments.append(name)
    return Promise(method, tuple(arguments), because, is_differentiable)


def check_methods(agent: Agent, interface: Interface, owner: str) -> None:
    """Check that an agent has what its interface promises.

    Args:
        owner: package and kind; the error begins with it.

    Raises:
        EnvironmentFailed: a method is missing, or differs in its arguments; the message names it.
    """
    table = methods_of(type(agent))
    for promise in promises_of(interface):
        needed = f"{owner}: its interface has `{promise.because}`, so its agent needs"
        if promise.method not in table:
            has = ", ".join(sorted(table)) or "none"
            raise EnvironmentFailed(f"{needed} a method `{promise.method}` marked with @remote; it has {has}")
        fault = _fault(promise, table[promise.method])
        if fault is not None:
            raise EnvironmentFailed(f"{needed} `{promise.method}({', '.join(promise.arguments)})`; {fault}")


def _fault(promise: Promise, method: Method) -> str | None:
    absent = [name for name in promise.arguments if name not in method.arguments]
    if absent:
        return f"it has no argument `{absent[0]}`"
    extra = sorted(method.required.difference(promise.arguments))
    if extra:
        return f"its argument `{extra[0]}` has no default, and no caller passes it"
    if promise.is_differentiable and not method.differentiable:
        return "it must be marked with @remote(differentiable=True)"
    return None


def check_trainable(agent: Agent, kind: Kind, owner: str) -> None:
    """Check that an agent can be trained and its weights saved and loaded again.

    Raises:
        EnvironmentFailed: it cannot.
    """
    if kind.weights is None:
        raise EnvironmentFailed(f"{owner} cannot be trained: its entry in KINDS has no `weights`")
    if agent.module() is None:
        raise EnvironmentFailed(f"{owner} cannot be trained: `module()` of its agent returns None")
    if not callable(getattr(agent, "model_config", None)):
        raise EnvironmentFailed(f"{owner} cannot be trained: its agent has no method `model_config()`")
