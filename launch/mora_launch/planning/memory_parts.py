"""The parts of a device's memory, and the phases of a job in which they differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Literal

Phase = Literal["preparation", "sampling", "step", "reduction", "checkpoint"]
# preparation: prompts and targets are encoded. sampling: samples before and after training. step: micro-batches.
# reduction: gradients are averaged over the replicas, then the optimizer runs. checkpoint: state is copied to the host.
PHASES: tuple[Phase, ...] = ("preparation", "sampling", "step", "reduction", "checkpoint")


@dataclass(frozen=True)
class MemoryParts:
    """Bytes of one role, or of a device's roles together, in one phase."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0  # float32 master weights and moments
    ema: int = 0
    graphs: int = 0  # activations, kept for the backward pass or temporary
    buffers: int = 0  # of the optimizer and of the reduction
    context: int = 0  # of CUDA and its libraries; on the CPU, of the process

    @property
    def total(self) -> int:
        """All of them."""
        return sum(asdict(self).values())


def added(parts: Iterable[MemoryParts]) -> MemoryParts:
    """Return the sums of the parts of several roles."""
    listed = list(parts)
    return MemoryParts(**{each.name: sum(getattr(one, each.name) for one in listed) for each in fields(MemoryParts)})
