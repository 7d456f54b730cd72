"""The section of a configuration for one agent."""

from __future__ import annotations

from typing import Any, Literal

from mora_runtime.rpc.server_settings import ATTENTION, AttentionKernel, Tf32
from mora_runtime.schema import PositiveInt, Settings
from mora_training.training_settings import OptimizerSettings, TrainableSettings
from pydantic import Field, field_validator

from mora_launch.config.capability import Capability


class AgentConfig(Settings):
    """One agent: its environment and devices, its models, its training."""

    environment: str  # of the checkout, or of `environments`
    kind: str  # one that the environment has: `./mora env list`
    devices: tuple[str, ...] = ("cpu",)  # one for each replica, or one for all
    num_threads: PositiveInt = 1  # torch's threads of each server
    attention: tuple[AttentionKernel, ...] = Field(default=ATTENTION, min_length=1)  # on GPUs: the first that can
    tf32: Tf32 = "convolutions"  # on GPUs: which float32 operations round their inputs
    tiny_models: str | None = None  # folder of the checkout for tiny models, which are created if missing
    tiny_task: Literal["shapes"] | None = None  # what they are pre-trained on, for minutes; None leaves them random
    options: dict[str, Any] = Field(default_factory=dict)  # checked by the environment before anything starts
    weights: str | None = None  # folder of trained weights, in place of those that the options name
    adapters: str | None = None  # folder of LoRA adapters for these weights, from a checkpoint; only to generate
    learning_rate: float = Field(default=1e-5, ge=0.0)  # of the model's parameters; training multiplies it by alpha
    modulation_learning_rate: float = Field(default=1e-5, ge=0.0)  # of z
    trainable: TrainableSettings = TrainableSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    # What it does for people's requests; None = all it can that no other agent names. If several can, the first does.
    capabilities: tuple[Capability, ...] | None = None
    arena_nbytes: PositiveInt | None = None  # limit of the server's tensors in shared memory; None = an equal share
    activation_nbytes: PositiveInt | None = None  # limit of graphs that wait for their backward; None = no limit
    recompute: bool = False  # keep a forward's inputs instead of its graph, and run it again for the backward

    @field_validator("attention")
    @classmethod
    def _names_each_once(cls, attention: tuple[AttentionKernel, ...]) -> tuple[AttentionKernel, ...]:
        if len(set(attention)) < len(attention):
            raise ValueError(f"expected each kernel at most once, in the order of preference, got {list(attention)}")
        return attention

    def device(self, replica: int) -> str:
        """Return the device of a replica's server."""
        return self.devices[replica] if len(self.devices) > 1 else self.devices[0]
