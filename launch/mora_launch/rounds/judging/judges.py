"""Creates the judges of a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from mora_runtime.errors import SettingsError

from mora_launch.environments.catalog import Environments
from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.judging.judge import Judge
from mora_launch.rounds.judging.judge_agents import judge_name
from mora_launch.rounds.judging.measured_judge import MeasuredJudge
from mora_launch.rounds.judging.shapes_judge import ShapesJudge
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
    return ShapesJudge(settings.emphasis) if settings.kind == "shapes" else MeasuredJudge(settings.emphasis)


def judged_criteria(settings: SynthesisSettings, judges: Sequence[Judge]) -> list[str]:
    """Return those of the configured criteria about which every judge can say something.

    Raises:
        SettingsError: there is none.
    """
    able = {judge.name: {name for name in settings.criteria if judge.can_judge(CRITERIA[name])} for judge in judges}
    common = [name for name in settings.criteria if all(name in names for names in able.values())]
    if not common:
        told = "; ".join(f"{name} can judge {', '.join(sorted(names)) or 'none'}" for name, names in able.items())
        raise SettingsError(f"synthesis.criteria: expected one that both judges can judge, got none: {told}")
    return common
