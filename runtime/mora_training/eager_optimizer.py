"""Optimizers without torch's compiler. Importing it costs each process seconds of CPU time, and nothing is compiled."""

from __future__ import annotations

import inspect
import types
from typing import Any

import torch


def mark_eager(kind: type[torch.optim.Optimizer]) -> None:
    """Mark the methods of a class of optimizers that torch excludes from compilation.

    torch imports its compiler at the first call of each method, to get a function that does the same outside of
    compiled code. The mark is where torch keeps that function; older versions of torch ignore it.
    """
    for method in vars(kind).values():
        eager = getattr(method, "__wrapped__", None)
        if eager is not None:
            eager.__dynamo_disable = eager


def step_eagerly(optimizer: torch.optim.Optimizer) -> None:
    """Replace the `step` of one optimizer by the same computation without torch's wrappers.

    The wrappers import the compiler in each step, to tell it where a compiled graph would have to end.
    """
    plain = torch.no_grad()(inspect.unwrap(type(optimizer).step))

    def step(self: torch.optim.Optimizer, *arguments: Any) -> Any:
        return plain(self, *arguments)

    optimizer.step = types.MethodType(step, optimizer)  # type: ignore[method-assign]
