"""Entry of an image server or a judge server: `python -m mora_env_sd3 --settings FILE --supervisor-fd N`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from mora_runtime import Agent, serve
from mora_runtime.schema import Settings, read_settings
from mora_training.optimizer_agent import PARTICIPANT, OptimizerAgent, Trainable
from mora_training.training_settings import TrainingServerSettings

from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import KINDS, MultimodalOptions, Sd3Options


def build_agents(settings: TrainingServerSettings) -> dict[str, Agent]:
    """Load the agents of one server, and its participant when it trains."""
    device = torch.device(settings.device)
    agents: dict[str, Agent] = {}
    for name, agent in settings.agents.items():
        options = read_settings(KINDS[agent.kind], agent.options, source=f"agents.{name}.options")
        agents[name] = _agent(options, device)
    if settings.training is not None:
        checkpoints = Path(settings.run_dir) / "checkpoints"
        own = cast(Trainable, agents[settings.name])  # settings.training is set only for such agents
        agents[PARTICIPANT] = OptimizerAgent(own, settings.training, device, checkpoints, settings.name)
    return agents


def _agent(options: Settings, device: torch.device) -> Agent:
    if isinstance(options, MultimodalOptions):
        from mora_env_sd3.judge_agent import JudgeAgent

        return JudgeAgent(options, device)
    assert isinstance(options, Sd3Options)
    return Sd3Agent(options, device)


if __name__ == "__main__":
    raise SystemExit(serve(TrainingServerSettings.from_argv(), build_agents))
