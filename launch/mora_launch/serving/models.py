"""Which models a server process loads: the one place where `serve` and `generate` resolve them.

A checkpoint's weights come in here, as other `options.model` folders and as modulation embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mora_launch.config import TrainConfig
from mora_launch.trained_model import named_checkpoint, trained_model


@dataclass(frozen=True)
class ServedModels:
    """A configuration whose `replicas` are the most servers that an agent has, and what every call carries."""

    config: TrainConfig
    num_servers: Mapping[str, int]
    modulation: Mapping[str, Any] = field(default_factory=dict)  # agent -> z_i, float32 (rows, d)

    def roles(self) -> list[str]:
        """Roles of all servers, `image.0`, ..."""
        return [f"{name}.{number}" for name, count in self.num_servers.items() for number in range(count)]

    def unused_roles(self) -> set[str]:
        """Roles that the configuration's replicas would add."""
        names = [name for name, _ in self.config.agents.items()]
        return {f"{name}.{number}" for name in names for number in range(self.config.replicas)} - set(self.roles())


def served_models(config: TrainConfig) -> ServedModels:
    """Models and numbers of servers of a configuration; with the weights and z of `serving.checkpoint` where it is set.

    Raises:
        CheckpointError: there is none, it is damaged, or it was trained by other agents.
    """
    embeddings: dict[str, Any] = {}
    if config.serving.checkpoint is not None:
        model = trained_model(*named_checkpoint(config.serving.checkpoint), average=config.serving.average)
        config, embeddings = model.put_into(config), model.read_embeddings()
    counts = {name: config.serving.servers.get(name, 1) for name, _ in config.agents.items()}  # type: ignore[call-overload]
    return ServedModels(config.model_copy(update={"replicas": max(counts.values())}), counts, embeddings)
