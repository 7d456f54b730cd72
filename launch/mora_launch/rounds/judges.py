"""The judges that a configuration names."""

from __future__ import annotations

from mora_launch.rounds.judge import Judge
from mora_launch.rounds.measured_judge import MeasuredJudge
from mora_launch.rounds.settings import JudgeSettings, SynthesisSettings


def open_judges(settings: SynthesisSettings) -> tuple[Judge, Judge]:
    """Both judges of a run."""
    first, second = map(_open, settings.judges)
    return first, second


def _open(settings: JudgeSettings) -> Judge:
    if settings.kind == "endpoint":
        from mora_launch.rounds.endpoint_judge import EndpointJudge

        return EndpointJudge(settings)
    return MeasuredJudge(settings.emphasis)
