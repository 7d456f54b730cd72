"""How long a GPU takes for counted work, at the rates that the plan assumes."""

from __future__ import annotations

from typing import NamedTuple

from mora_environment.cost import CallCost, Work

from mora_launch.planning.gpu_rates import GpuRates


class CallSeconds(NamedTuple):
    """Both passes of one call."""

    forward_s: float
    backward_s: float


def call_seconds(cost: CallCost, rates: GpuRates) -> CallSeconds:
    """Return the seconds of a call."""
    return CallSeconds(
        _seconds(cost.forward, rates, rates.attention), _seconds(cost.backward, rates, rates.attention_backward)
    )


def _seconds(work: Work, rates: GpuRates, attention: float) -> float:
    """The time of the work, or of the launches of its kernels if that is longer."""
    busy_s = (
        work.matmul / rates.matmul
        + work.matmul_float32 / rates.matmul_float32
        + work.attention / attention
        + work.attention_float32 / rates.matmul_float32
        + work.convolution / rates.convolution
        + work.convolution_float32 / rates.convolution_float32
        + work.moved_nbytes / rates.memory
    )
    return max(busy_s, work.num_operations * rates.launch_s)
