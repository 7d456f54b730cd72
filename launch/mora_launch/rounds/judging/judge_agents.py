"""The agents of judges that are models on this machine: their names, and their sections as of a configuration."""

from __future__ import annotations

from mora_launch.config.agent_config import AgentConfig
from mora_launch.rounds.settings import LocalModelSettings, SynthesisSettings

_KIND = "multimodal"


def judge_name(number: int) -> str:
    """Name of the role of one of the judges."""
    return f"judge-{number}"


def judge_agent(local: LocalModelSettings) -> AgentConfig:
    """The agent of a judge's settings."""
    return AgentConfig(
        environment=local.environment,
        kind=_KIND,
        devices=(local.device,),
        num_threads=local.num_threads,
        options=local.model_dump(include={"model", "dtype", "max_new_tokens"}),
    )


def judge_agents(settings: SynthesisSettings) -> dict[str, AgentConfig]:
    """The agents of all judges that are models on this machine, by name."""
    found = {judge_name(number): judge.local for number, judge in enumerate(settings.judges) if judge.kind == "local"}
    return {name: judge_agent(local) for name, local in found.items() if local is not None}
