"""Mora's echo server: `python -m benchmarks.ipc.echo_server --settings FILE --supervisor-fd N`. Started by `ours`."""

from __future__ import annotations

import mora_runtime
import torch
from mora_runtime import Agent, ServerSettings, remote, serve


class EchoAgent(Agent):
    """The methods that the benchmark calls."""

    def __init__(self) -> None:
        self._kept = torch.empty(0)

    @remote
    def nothing(self) -> None:
        """An empty call."""

    @remote
    def add_one(self, x: torch.Tensor) -> torch.Tensor:
        """The code of an agent that does not use slots: the allocator decides where the answer is."""
        return x + 1

    @remote
    def add_one_in_slot(self, x: torch.Tensor) -> torch.Tensor:
        """Make the answer in a slot, from where it is sent without a copy."""
        return torch.add(x, 1, out=mora_runtime.empty(x.shape, x.dtype))

    @remote
    def keep(self, nbytes: int) -> None:
        """Make the tensor that `kept` returns: 0, 1, 2, ... modulo 4093."""
        self._kept = mora_runtime.empty([nbytes // 4])
        torch.arange(nbytes // 4, out=self._kept)
        self._kept.remainder_(4093)

    @remote
    def kept(self) -> torch.Tensor:
        """Return the tensor that was made before."""
        return self._kept

    @remote
    def shape(self, x: torch.Tensor) -> list[int]:
        """Shape of a tensor whose values this server does not read."""
        return list(x.shape)

    @remote
    def total(self, x: torch.Tensor) -> float:
        """Sum of all values, in float64."""
        return float(x.sum(dtype=torch.float64))


def build(settings: ServerSettings) -> dict[str, Agent]:
    """The one agent."""
    return {"echo": EchoAgent()}


if __name__ == "__main__":
    raise SystemExit(serve(ServerSettings.from_argv(), build))
