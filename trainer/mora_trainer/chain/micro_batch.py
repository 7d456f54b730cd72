"""Samples that pass through a chain together, and what their pass gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class MicroBatch:
    """Samples of one pass, by agent name; every tuple has one entry for each sample."""

    prompts: Mapping[str, tuple[str, ...]]  # keys from `encode`; the texts for an agent without text encoder
    seeds: Mapping[str, tuple[int, ...]]
    targets: Mapping[str, tuple[str, ...]]  # keys from `store_target`, for the agents that compare with targets


@dataclass(frozen=True)
class MicroBatchResult:
    """Losses and gradients of one micro-batch; `StepReport` has the same numbers of a whole step."""

    loss: float  # the weighted sum of `losses`
    losses: dict[str, float]  # by agent
    gradients: dict[str, torch.Tensor]  # dL/dz_i by agent, (rows, d_i) float32; empty without modulation
    output_gradient_norms: dict[str, float]  # ||dL/dO_i||_2 by agent, for every stage but the last
    compute_s: dict[str, float] = field(
        default_factory=dict
    )  # inside the agents: `<agent>_forward`, `<agent>_backward`
