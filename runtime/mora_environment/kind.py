"""A kind of agent: an entry of an environment's table `KINDS`, which `mora_environment.main` serves."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_runtime.schema import Settings

if TYPE_CHECKING:
    import torch
    from mora_runtime import Agent

Build = Callable[[Any, "torch.device"], "Agent"]
MakeTiny = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """One kind of agent.

    A callable can be given as text, `module:name`, and is then imported when it is first used. So the check of options
    needs no model library and answers in well under a second.

    Args:
        options: checks the options of a configuration without loading anything. Optional methods: `components()`, a
            list of `Component` for the memory table, and `interface()`, an `Interface`; without it the kind cannot be
            in a chain.
        build: makes the agent from its options and a device.
        weights: the option that names a folder of trained weights; None = the kind cannot be trained.
        tiny: makes tiny models with random weights in a folder, and returns options that load them.
        tiny_tasks: more makers of tiny models by name, for `tiny_task` of a configuration; each pre-trains them.
    """

    options: type[Settings]
    build: Build | str
    weights: str | None = None
    tiny: MakeTiny | str | None = None
    tiny_tasks: Mapping[str, Callable[..., None] | str] = field(default_factory=dict)


def imported(target: Callable[..., Any] | str) -> Callable[..., Any]:
    """The callable itself, or the one that the text `module:name` names."""
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
