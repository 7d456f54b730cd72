"""The steps of a traced job from the coordinators' traces: when each ran, and whether its time counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mora_launch.profiling.lane import Lane

STEP = "step"
MICRO_BATCHES = "micro-batches"
COORDINATOR = "coordinator"


@dataclass(frozen=True)
class StepWindow:
    """One step of one replica; times in ns of CLOCK_MONOTONIC.

    pipeline: the part in which micro-batches go through the chain.
    left_out: why the step does not count in means; empty if it does.
    """

    replica: int
    number: int  # from 0
    start_ns: int
    end_ns: int
    pipeline: tuple[int, int]
    left_out: str = ""

    @property
    def wall_s(self) -> float:
        """Length."""
        return (self.end_ns - self.start_ns) / 1e9


def step_windows(lanes: Sequence[Lane], torch_step: int | None) -> list[StepWindow]:
    """Return all completed steps, replica by replica.

    The first step includes one-time costs, and the step recorded by torch's profiler is slower. Neither counts unless
    there is no other step.
    """
    found: list[StepWindow] = []
    for lane in lanes:
        if lane.name == COORDINATOR:
            found += _of_coordinator(lane, torch_step)
    return found


def _of_coordinator(lane: Lane, torch_step: int | None) -> list[StepWindow]:
    spans = [span for span in lane.spans if span.name == STEP and not span.is_cut]
    plain = [span for span in spans if span.args["step"] != torch_step]
    warm_up = plain[0] if len(plain) > 1 else None
    windows = []
    for span in spans:
        left_out = "torch profiler" if span not in plain and plain else "warm-up" if span is warm_up else ""
        chain = next(
            (s for s in lane.spans if s.name == MICRO_BATCHES and span.start_ns <= s.start_ns < span.end_ns), span
        )
        pipeline = (chain.start_ns, chain.end_ns)
        windows.append(StepWindow(lane.replica, int(span.args["step"]), span.start_ns, span.end_ns, pipeline, left_out))
    return windows
