"""The chain that a configuration trains, as the profiler needs it: its stages in order, and how far they overlap."""

from __future__ import annotations

from mora_launch.config.train_config import TrainConfig


def chain_of(config: TrainConfig) -> tuple[str, ...]:
    """Return the names of the chain's agents, in the order of the forward; a critic is last."""
    names: tuple[str, ...] = getattr(config, "chain_names", ())
    return names or tuple(name for name, _ in config.agents.items())


def max_in_flight_of(config: TrainConfig) -> int:
    """Return the most micro-batches that are in the chain at the same time."""
    number = config.training.pipeline.max_in_flight
    return len(chain_of(config)) + 1 if number is None else number
