"""The judges that a configuration names, opened together and closed together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mora_runtime.run_directory import RunDirectory

from mora_launch.rounds.judge import Judge
from mora_launch.rounds.measured_judge import MeasuredJudge
from mora_launch.rounds.settings import JudgeSettings, SynthesisSettings


@contextmanager
def open_judges(settings: SynthesisSettings, directory: RunDirectory) -> Iterator[tuple[Judge, Judge]]:
    """Both judges of a run; a model is loaded at its first question."""
    with ExitStack() as stack:
        first, second = (_open(judge, directory, stack) for judge in settings.judges)
        yield first, second


def _open(settings: JudgeSettings, directory: RunDirectory, stack: ExitStack) -> Judge:
    if settings.kind == "endpoint":
        from mora_launch.rounds.endpoint_judge import EndpointJudge

        return EndpointJudge(settings)
    return MeasuredJudge(settings.emphasis)
