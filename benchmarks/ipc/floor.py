"""The lower bound of any transport, measured in this process with one thread: copying and adding the same bytes."""

from __future__ import annotations

import torch

from benchmarks.ipc.contestant import Contestant

_NOTHING = torch.empty(0)


class Copy(Contestant):
    """One copy into warm memory. Checked through `Floor`, which does the same copy."""

    name = "copy"

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        self._arrived = torch.zeros_like(x)  # written once, so that its pages are allocated
        return x

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        return self._arrived.copy_(x)

    def check(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().check(x, y + 1)

    def finish(self) -> None:
        self._arrived = _NOTHING


class Add(Contestant):
    """One addition into warm memory: the echo without any transport of x."""

    name = "add"

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        self._y = torch.zeros_like(x)
        return x

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(x, 1, out=self._y)

    def finish(self) -> None:
        self._y = _NOTHING


class Floor(Contestant):
    """One copy and one addition, both into warm memory."""

    name = "floor"

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        self._arrived, self._y = torch.zeros_like(x), torch.zeros_like(x)
        return x

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        self._arrived.copy_(x)
        return torch.add(self._arrived, 1, out=self._y)

    def finish(self) -> None:
        self._arrived = self._y = _NOTHING


class FreshAdd(Contestant):
    """One addition into newly allocated memory: the cost of an agent that returns `x + 1`."""

    name = "fresh_add"

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def contestants() -> list[Contestant]:
    """All contestants of this module."""
    return [Copy(), Add(), Floor(), FreshAdd()]
