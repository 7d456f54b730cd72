"""The models that each server process loads, resolved here for both `serve` and `generate`.

With a checkpoint, the agents' options name its weights, and every call carries its modulation embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mora_runtime.process.role import Role

from mora_launch.checkpoints.trained_model import TrainedModel, named_checkpoint, trained_model
from mora_launch.config.capability import CAPABILITIES
from mora_launch.config.train_config import TrainConfig


@dataclass(frozen=True)
class ServedModels:
    """A configuration whose `replicas` is the largest number of servers of an agent, and the z of every call."""

    config: TrainConfig
    num_servers: Mapping[str, int]
    modulation: Mapping[str, Any] = field(default_factory=dict)  # agent -> z_i, float32 (rows, d)
    checkpoint: TrainedModel | None = None  # None = what the configuration names, untrained

    def allowed_capabilities(self, agent: str) -> frozenset[str]:
        """Return the capabilities of an agent: those in its configuration, or all that no other agent has there."""
        named = self.config.agents[agent].capabilities
        if named is not None:
            return frozenset(named)
        return frozenset(CAPABILITIES).difference(*(other.capabilities or () for other in self.config.agents.values()))

    def roles(self) -> list[Role]:
        """Return the roles of all servers: `image.0`, ..."""
        return [Role.of(name, number) for name, count in self.num_servers.items() for number in range(count)]


def served_models(config: TrainConfig) -> ServedModels:
    """Return the models and numbers of servers of a configuration, with the weights and z of `serving.checkpoint`.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, or was trained with other agents.
    """
    embeddings: dict[str, Any] = {}
    model = None
    if config.serving.checkpoint is not None:
        model = trained_model(*named_checkpoint(config.serving.checkpoint), average=config.serving.average)
        config, embeddings = model.put_into(config), model.read_embeddings()
    agents = {**config.agents, **config.serving.agents}
    counts = {name: config.serving.servers.get(name, 1) for name in agents}
    config = config.model_copy(update={"replicas": max(counts.values()), "agents": agents})
    return ServedModels(config, counts, embeddings, model)
