"""A script for `mora_runtime.spawn`: hosts three agents, of which each process is used for one.

A call waits for a timer. The wait stands for a kernel on a GPU: it takes a fixed wall time, and the process needs no
core meanwhile.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from mora_runtime import Agent, host, remote
from torch import Tensor

BACKWARD_FACTOR = 2.0  # a backward needs about twice the time of its forward
_PICTURE = (3, 64, 64)  # small, so that arithmetic takes little of the time


class _Work(torch.autograd.Function):
    """x * weight; forward and backward each wait for their timer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, forward_s: float) -> Tensor:
        time.sleep(forward_s)
        ctx.save_for_backward(x, weight)
        ctx.backward_s = BACKWARD_FACTOR * forward_s
        return x * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        time.sleep(ctx.backward_s)
        x, weight = ctx.saved_tensors
        return grads[0] * weight, (grads[0] * x).sum(), None


class _TimedAgent(Agent):
    """One parameter, and a fixed time for each call."""

    def __init__(self) -> None:
        self._weight = torch.nn.Parameter(torch.ones(()))
        self._forward_s = 0.0

    @remote
    def begin(self, forward_s: float) -> None:
        """Set the time of a forward."""
        self._forward_s = forward_s

    def _worked(self, x: Tensor) -> Tensor:
        worked: Tensor = _Work.apply(x, self._weight, self._forward_s)  # type: ignore[no-untyped-call]
        return worked


class Source(_TimedAgent):
    """The first agent: `images` (B, 3, H, W) from seeds."""

    @remote(differentiable=True)
    def forward(self, z: Tensor | None, prompt_keys: list[str], seeds: list[int]) -> dict[str, Any]:
        """`images`; the same seed gives the same picture."""
        pictures = [torch.randn(_PICTURE, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return {"images": self._worked(torch.stack(pictures))}


class Transform(_TimedAgent):
    """The agent in the middle."""

    @remote(differentiable=True)
    def forward(self, z: Tensor | None, prompt_keys: list[str], seeds: list[int], images: Tensor) -> dict[str, Any]:
        """`images`, changed."""
        return {"images": self._worked(images)}


class Objective(_TimedAgent):
    """The last agent."""

    @remote(differentiable=True)
    def loss(self, z: Tensor | None, prompt_keys: list[str], seeds: list[int], images: Tensor) -> dict[str, Any]:
        """`loss`: the pictures' mean square."""
        return {"loss": self._worked(images).square().mean()}


if __name__ == "__main__":
    host(first=Source(), middle=Transform(), last=Objective())
