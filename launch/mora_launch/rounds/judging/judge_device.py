"""Whether a judge's model would have to share a GPU with an agent's, which fills it."""

from __future__ import annotations

from mora_launch.config.train_config import TrainConfig
from mora_launch.rounds.settings import JudgeSettings


def needs_device_of_agents(judge: JudgeSettings, config: TrainConfig) -> bool:
    """True where a local judge runs on a GPU on which a server of an agent runs too."""
    if judge.kind != "local" or judge.local is None or judge.local.device == "cpu":
        return False
    used = {_full_name(agent.device(r)) for _, agent in config.agents.items() for r in range(config.replicas)}
    return _full_name(judge.local.device) in used


def _full_name(device: str) -> str:
    """A process that names no GPU by number uses the first."""
    return "cuda:0" if device == "cuda" else device
