"""Times of each micro-batch in each server, from which other schedules are simulated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mora_launch.profiling.lane import Lane
from mora_launch.profiling.role_trace import TraceSpan
from mora_launch.profiling.schedule import MicroBatchTimes
from mora_launch.profiling.step_window import StepWindow

IMAGE = "image"
VIDEO = "video"
_CALL = "call "


@dataclass(frozen=True)
class StageTime:
    """One call of one micro-batch in a server: the part that grows with the samples, and the fixed part."""

    compute_s: float
    overhead_s: float

    def scaled(self, compute: float) -> float:
        """Return the seconds of the call if its compute takes `compute` times as long."""
        return self.compute_s * compute + self.overhead_s


@dataclass(frozen=True)
class StageTimes:
    """The stages of a step, micro-batch by micro-batch."""

    image_forward: tuple[StageTime, ...]
    video: tuple[StageTime, ...]  # forward and backward in one call
    image_backward: tuple[StageTime, ...]

    @property
    def num_micro_batches(self) -> int:
        """Number of micro-batches with all stages recorded."""
        return min(len(self.image_forward), len(self.video), len(self.image_backward))

    def for_schedule(self, *, image: float = 1.0, video: float = 1.0) -> list[MicroBatchTimes]:
        """Return the times for `critical_path_s`, with each agent's compute multiplied by its factor."""
        return [
            MicroBatchTimes(
                image_forward_s=self.image_forward[k].scaled(image),
                video_forward_s=self.video[k].scaled(video),
                video_backward_s=0.0,
                image_backward_s=self.image_backward[k].scaled(image),
            )
            for k in range(self.num_micro_batches)
        ]


def call_spans(lane: Lane, window: tuple[int, int]) -> list[TraceSpan]:
    """Return the calls that a server received inside a window, in order."""
    return [span for span in lane.spans if span.name.startswith(_CALL) and window[0] <= span.start_ns < window[1]]


def stage_times(lanes: Sequence[Lane], step: StepWindow) -> StageTimes:
    """Return the stages of one step of one replica; empty tuples for a server without a trace."""
    stages: dict[tuple[str, bool], list[StageTime]] = defaultdict(list)
    for lane in lanes:
        if lane.replica == step.replica:
            for span in call_spans(lane, step.pipeline):
                stages[(lane.name, span.name.endswith("backward"))].append(_stage(lane, span))
    return StageTimes(tuple(stages[(IMAGE, False)]), tuple(stages[(VIDEO, False)]), tuple(stages[(IMAGE, True)]))


def _stage(lane: Lane, span: TraceSpan) -> StageTime:
    shares = lane.shares(span.start_ns, span.end_ns)
    return StageTime(shares["compute"], span.spent_ns / 1e9 - shares["compute"])
