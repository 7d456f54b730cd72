"""The expected time of one step: micro-batches through the chain, then the reduction and the optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mora_launch.planning.call_time import CallSeconds
from mora_launch.planning.gpu_rates import GpuRates
from mora_launch.planning.role_memory import EMA_NBYTES, RoleMemory
from mora_launch.profiling.schedule import StageSeconds, critical_path_s

_ADAM_MOVED_NBYTES = 28  # read and written for each parameter: gradient, master weight, two moments


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step, and how long each device works in it."""

    micro_batches_s: float
    reduction_s: float
    busy_s: Mapping[str, float]  # by device

    @property
    def step_s(self) -> float:
        """The whole step."""
        return self.micro_batches_s + self.reduction_s


@dataclass(frozen=True)
class TimedStage:
    """One agent of the chain: its device for each replica, its times, and its reduction."""

    devices: tuple[str, ...]
    call: CallSeconds
    has_backward: bool
    reduction_s: float


def step_time(stages: Sequence[TimedStage], *, num_micro_batches: int, max_in_flight: int) -> StepTime:
    """Return the time of a step in which no server waits for messages.

    Args:
        stages: in the order of the chain.
        num_micro_batches: of one replica.
    """
    batch = [
        StageSeconds(stage.call.forward_s, stage.call.backward_s if stage.has_backward else None) for stage in stages
    ]
    through_s = critical_path_s([batch] * num_micro_batches, max_in_flight)
    work_s: dict[str, float] = defaultdict(float)
    reduction_s: dict[str, float] = defaultdict(float)
    for stage in stages:
        call_s = stage.call.forward_s + (stage.call.backward_s if stage.has_backward else 0.0)
        for device in stage.devices:
            work_s[device] += num_micro_batches * call_s
            reduction_s[device] += stage.reduction_s
    return StepTime(
        micro_batches_s=max(through_s, *work_s.values()),  # agents that share a device take turns
        reduction_s=max(reduction_s.values()),
        busy_s={device: work_s[device] + reduction_s[device] for device in work_s},
    )


def reduction_seconds(role: RoleMemory, rates: GpuRates) -> float:
    """Return the seconds in which gradients are averaged, the optimizer runs and the new weights are gathered."""
    others = (role.num_replicas - 1) / role.num_replicas
    shard = role.num_trained / role.num_replicas
    sent_nbytes = others * role.num_trained * (4 + 2)  # float32 gradients are scattered, bfloat16 weights gathered
    moved_nbytes = shard * (_ADAM_MOVED_NBYTES + 2 * EMA_NBYTES) + 8 * role.num_trained
    return sent_nbytes / rates.link + moved_nbytes / rates.memory
