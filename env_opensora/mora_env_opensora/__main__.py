"""Entry of a video server: `python -m mora_env_opensora --settings FILE --supervisor-fd N`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

# Set before transformers is imported, because ffmpeg forks after tokenizers ran, which would warn or hang.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from mora_runtime import Agent, serve
from mora_runtime.schema import read_settings
from mora_training.optimizer_agent import PARTICIPANT, OptimizerAgent, Trainable
from mora_training.training_settings import TrainingServerSettings

from mora_env_opensora.agent import OpenSoraAgent
from mora_env_opensora.options import KINDS


def build_agents(settings: TrainingServerSettings) -> dict[str, Agent]:
    """Load the agents of one server, and its participant when it trains."""
    device = torch.device(settings.device)
    agents: dict[str, Agent] = {}
    for name, agent in settings.agents.items():
        options = read_settings(KINDS[agent.kind], agent.options, source=f"agents.{name}.options")
        agents[name] = OpenSoraAgent.from_options(options, device)
    if settings.training is not None:
        checkpoints = Path(settings.run_dir) / "checkpoints"
        own = cast(Trainable, agents[settings.name])  # settings.training is set only for such agents
        agents[PARTICIPANT] = OptimizerAgent(own, settings.training, device, checkpoints, settings.name)
    return agents


if __name__ == "__main__":
    raise SystemExit(serve(TrainingServerSettings.from_argv(), build_agents))
