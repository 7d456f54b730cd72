"""Times of each micro-batch in each server, from which other schedules are simulated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mora_launch.profiling.lane import Lane
from mora_launch.profiling.role_trace import TraceSpan
from mora_launch.profiling.schedule import MicroBatchTimes, StageSeconds
from mora_launch.profiling.step_window import StepWindow

_CALL = "call "


@dataclass(frozen=True)
class StageTime:
    """One call of one micro-batch in a stage: the part that grows with the samples, and the fixed part."""

    compute_s: float
    overhead_s: float

    def scaled(self, compute: float) -> float:
        """Return the seconds of the call if its compute takes `compute` times as long."""
        return self.compute_s * compute + self.overhead_s


@dataclass(frozen=True)
class StageCalls:
    """The calls of one agent in a step, micro-batch by micro-batch.

    `backward` is empty for the last stage of a chain, because each call in `forward` also runs the backward, and for
    a stage that trains nothing.
    """

    agent: str
    forward: tuple[StageTime, ...]
    backward: tuple[StageTime, ...]


@dataclass(frozen=True)
class StageTimes:
    """The stages of a step, in the order of the chain."""

    stages: tuple[StageCalls, ...]

    @property
    def num_micro_batches(self) -> int:
        """Number of micro-batches with all calls recorded."""
        backwards = [stage.backward for stage in self.stages if stage.backward]
        return min(len(column) for column in (*(stage.forward for stage in self.stages), *backwards))

    def for_schedule(self, factors: Mapping[str, float] | None = None) -> list[MicroBatchTimes]:
        """Return the times for `critical_path_s`, with the compute of the agents in `factors` multiplied by these."""
        return [
            [_seconds(stage, number, (factors or {}).get(stage.agent, 1.0)) for stage in self.stages]
            for number in range(self.num_micro_batches)
        ]


def _seconds(stage: StageCalls, number: int, factor: float) -> StageSeconds:
    backward_s = stage.backward[number].scaled(factor) if stage.backward else None
    return StageSeconds(stage.forward[number].scaled(factor), backward_s)


def call_spans(lane: Lane, window: tuple[int, int]) -> list[TraceSpan]:
    """Return the calls that a server received inside a window, in order."""
    return [span for span in lane.spans if span.name.startswith(_CALL) and window[0] <= span.start_ns < window[1]]


def stage_times(lanes: Sequence[Lane], step: StepWindow, chain: Sequence[str]) -> StageTimes:
    """Return the stages of one step of one replica; a server without a trace has no calls.

    Args:
        chain: names of the agents, in the order of the forward.
    """
    calls: dict[tuple[str, bool], list[StageTime]] = defaultdict(list)
    for lane in lanes:
        if lane.replica == step.replica:
            for span in call_spans(lane, step.pipeline):
                calls[(lane.name, span.name.endswith("backward"))].append(_stage_time(lane, span))
    return StageTimes(
        tuple(StageCalls(name, tuple(calls[(name, False)]), tuple(calls[(name, True)])) for name in chain)
    )


def _stage_time(lane: Lane, span: TraceSpan) -> StageTime:
    shares = lane.shares(span.start_ns, span.end_ns)
    return StageTime(shares["compute"], span.spent_ns / 1e9 - shares["compute"])
