"""What a configuration says of one agent."""

from __future__ import annotations

from typing import Any, Literal

from mora_runtime.schema import PositiveInt, Settings
from mora_training.training_settings import OptimizerSettings, TrainableSettings
from pydantic import Field


class AgentConfig(Settings):
    """One agent: where it lives, what it loads, how it trains."""

    environment: Literal["sd3", "opensora"]
    kind: str
    devices: tuple[str, ...] = ("cpu",)  # one for each replica, or one for all
    num_threads: PositiveInt = 1
    tiny_models: str | None = None  # folder, in the checkout, in which tiny models are made when they are not there
    tiny_task: Literal["shapes"] | None = None  # what they are pre-trained on, some minutes; None leaves them random
    options: dict[str, Any] = Field(default_factory=dict)  # the environment's own, checked by it before anything starts
    learning_rate: float = Field(default=1e-5, ge=0.0)
    modulation_learning_rate: float = Field(default=1e-5, ge=0.0)
    trainable: TrainableSettings = TrainableSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    arena_nbytes: PositiveInt | None = None  # of the server's tensors in shared memory; None = an equal share
    activation_nbytes: PositiveInt | None = None  # that graphs waiting for their backward may keep; None = no bound
    recompute: bool = False  # keep a forward's inputs instead of its graph, and run it again for the backward

    def device(self, replica: int) -> str:
        """Device of the server of one replica."""
        return self.devices[replica] if len(self.devices) > 1 else self.devices[0]
