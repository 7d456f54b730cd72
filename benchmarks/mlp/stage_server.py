"""A server of one stage: `python -m benchmarks.mlp.stage_server --settings FILE --supervisor-fd N`."""

from __future__ import annotations

from typing import Any

from mora_runtime import Agent, ServerSettings, remote, serve
from torch import Tensor

from benchmarks.mlp import stages

AGENT = "stage"


class StageAgent(Agent):
    """One stage and its optimizer. Call `begin` first.

    Args:
        is_first: which of the two stages.
    """

    def __init__(self, *, is_first: bool) -> None:
        self._make = stages.first_stage if is_first else stages.second_stage

    @remote
    def begin(self, width: int) -> None:
        """Make a fresh stage and optimizer."""
        self._stage = self._make(width)
        self._optimizer = stages.optimizer_of(self._stage)

    @remote(differentiable=True)
    def forward(self, x: Tensor) -> dict[str, Any]:
        """Forward of the first stage; returns `hidden`."""
        return {"hidden": self._stage(x)}

    @remote(differentiable=True)
    def loss(self, hidden: Tensor, target: Tensor) -> dict[str, Any]:
        """Forward of the second stage; returns `loss`."""
        return {"loss": stages.loss_of(self._stage(hidden), target)}

    @remote
    def step(self) -> None:
        """Step the optimizer with the accumulated gradients."""
        self._optimizer.step()
        self._optimizer.zero_grad()

    @remote
    def weights(self) -> dict[str, Any]:
        """Weights of the stage by names such as `0_weight`."""
        return {name.replace(".", "_"): value for name, value in self._stage.state_dict().items()}


def build(settings: ServerSettings) -> dict[str, Agent]:
    """The one agent; the role's name says which stage."""
    return {AGENT: StageAgent(is_first=settings.name == "first")}


if __name__ == "__main__":
    raise SystemExit(serve(ServerSettings.from_argv(), build))
