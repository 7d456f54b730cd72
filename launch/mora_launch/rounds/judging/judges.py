"""Creates the judges of a configuration."""

from __future__ import annotations

from mora_launch.environments.catalog import Environments
from mora_launch.rounds.judging.judge import Judge
from mora_launch.rounds.judging.judge_agents import judge_name
from mora_launch.rounds.judging.measured_judge import MeasuredJudge
from mora_launch.rounds.settings import JudgeSettings, SynthesisSettings


def open_judges(settings: SynthesisSettings, environments: Environments) -> tuple[Judge, Judge]:
    """Return both judges of a run.

    Args:
        environments: those of the configuration, by name.

    Raises:
        MoraError: the settings of a local model are invalid.
    """
    first, second = (_open(judge, judge_name(number), environments) for number, judge in enumerate(settings.judges))
    return first, second


def _open(settings: JudgeSettings, name: str, environments: Environments) -> Judge:
    if settings.kind == "endpoint":
        from mora_launch.rounds.judging.endpoint_judge import EndpointJudge

        return EndpointJudge(settings)
    if settings.kind == "local":
        from mora_launch.rounds.judging.local_judge import LocalJudge

        return LocalJudge(settings, name, environments)
    return MeasuredJudge(settings.emphasis)
