"""Checks whether a judge or a metric would share a GPU with an agent, whose model leaves no memory for it."""

from __future__ import annotations

from mora_launch.config.train_config import TrainConfig
from mora_launch.rounds.settings import JudgeSettings


def needs_device_of_agents(judge: JudgeSettings, config: TrainConfig) -> bool:
    """Return whether a local judge uses the same GPU as the server of an agent."""
    if judge.kind != "local" or judge.local is None:
        return False
    return is_of_agents(judge.local.device, config)


def is_of_agents(device: str, config: TrainConfig) -> bool:
    """Return whether the server of an agent uses this GPU."""
    if device == "cpu":
        return False
    used = {_full_name(agent.device(r)) for _, agent in config.agents.items() for r in range(config.replicas)}
    return _full_name(device) in used


def _full_name(device: str) -> str:
    """Add the number to a device name; without one a process uses the first GPU."""
    return "cuda:0" if device == "cuda" else device
