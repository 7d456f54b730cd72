"""Entry of an image server: `python -m mora_env_sd3 --settings FILE --supervisor-fd N`."""

from __future__ import annotations

from pathlib import Path

import torch
from mora_runtime import Agent, ServerSettings, serve
from mora_runtime.participant import PARTICIPANT, Participant
from mora_runtime.schema import read_settings
from mora_runtime.training_settings import ParticipantSettings

from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import KINDS


def build_agents(settings: ServerSettings) -> dict[str, Agent]:
    """Load the agents of one server, and its participant when it trains."""
    device = torch.device(settings.device)
    agents: dict[str, Agent] = {}
    for name, agent in settings.agents.items():
        options = read_settings(KINDS[agent.kind], agent.options, source=f"agents.{name}.options")
        agents[name] = Sd3Agent(options, device)
    if settings.training is not None:
        training = read_settings(ParticipantSettings, settings.training, source=f"training of {settings.role}")
        checkpoints = Path(settings.run_dir) / "checkpoints"
        agents[PARTICIPANT] = Participant(agents[settings.name], training, device, checkpoints, settings.name)
    return agents


if __name__ == "__main__":
    raise SystemExit(serve(ServerSettings.from_argv(), build_agents))
