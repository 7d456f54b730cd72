"""Exponential moving average of flat float32 parameter partitions, sharded exactly as the optimizer is.

Owned by `ShardedOptimizer`. Same decay as Open-Sora-Plan v1.2 (diffusers' EMAModel without its warm-up flag).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def ema_decay(num_updates: int, max_decay: float) -> float:
    """Decay of update number `num_updates` (1 = first): min(max_decay, (1 + k) / (10 + k)), k = num_updates - 1.

    It is 0 at k = 0, so the first update copies the parameters and early ones follow quickly.
    """
    k = num_updates - 1
    return 0.0 if k <= 0 else min(max_decay, (1 + k) / (10 + k))


class ShardedEma:
    """Shadow copies of this rank's partitions: float32, same shapes and device."""

    def __init__(self, partitions: Sequence[torch.Tensor], max_decay: float) -> None:
        self._partitions = partitions
        self._max_decay = max_decay
        self.num_updates = 0
        self.shadows = [partition.detach().clone() for partition in partitions]

    @torch.no_grad()
    def update(self) -> None:
        """Move every shadow towards its partition by 1 - decay."""
        self.num_updates += 1
        weight = 1.0 - ema_decay(self.num_updates, self._max_decay)
        for shadow, partition in zip(self.shadows, self._partitions, strict=True):
            shadow.lerp_(partition, weight)
