"""A plain training loop for models of a few hundred thousand parameters, in one process and on one device.

The environments pre-train their tiny models with it (`tiny_shapes`), so that these generate recognisable pictures.
Joint training does not use it, but `sharded_optimizer` and the trainer's step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

_NUM_WARMUP_STEPS = 20
_LAST_RATE = 0.05  # share of the learning rate that is left at the end
_NUM_REPORTS = 5


@dataclass(frozen=True)
class Phase:
    """Length and settings of one training phase; `name` begins the lines that it prints."""

    name: str
    num_steps: int
    batch_size: int
    learning_rate: float


def train_tiny(
    parameters: Iterable[torch.nn.Parameter],
    phase: Phase,
    num_samples: int,
    loss_of: Callable[[torch.Tensor, torch.Generator], torch.Tensor],
    *,
    seed: int,
) -> float:
    """Train with AdamW and a linearly falling rate; the same seed gives the same weights on the same machine.

    Args:
        num_samples: number of samples to draw batches from.
        loss_of: computes the scalar loss of the samples with the given indices, int64 (batch_size,); it must draw all
            random numbers from the generator.

    Returns:
        the mean loss of the last fifth of the steps.
    """
    trained = list(parameters)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(trained, lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    report_every = max(1, phase.num_steps // _NUM_REPORTS)
    losses: list[float] = []
    for step in range(phase.num_steps):
        warm = min(1.0, (step + 1) / _NUM_WARMUP_STEPS)
        rate = phase.learning_rate * warm * (1.0 - (1.0 - _LAST_RATE) * step / phase.num_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(torch.randint(num_samples, (phase.batch_size,), generator=generator), generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % report_every == 0:
            mean = sum(losses[-report_every:]) / report_every
            print(f"{phase.name}: step {step + 1}/{phase.num_steps}, loss {mean:.4f}", flush=True)
    return sum(losses[-report_every:]) / min(report_every, len(losses))


@torch.no_grad()
def quieten(moments: torch.nn.Conv2d | torch.nn.Conv3d) -> None:
    """Make an untrained autoencoder's posterior narrow; `moments` outputs its means, then its log variances.

    At initialisation its noise is as large as its means, and would hide them for hundreds of steps.
    """
    half = moments.out_channels // 2
    assert moments.bias is not None
    moments.weight[half:] *= 0.1
    moments.bias[half:] = -5.0


def weighted_error(made: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Mean squared error of pictures or clips (B, 3, ...) in [-1, 1], with bright pixels weighted nine times.

    The shapes cover a tenth of their pictures: with equal weights, a model learns a plain background first and for long
    nothing else.
    """
    bright = pixels.amax(dim=1, keepdim=True) > -0.5
    return ((1.0 + 8.0 * bright) * (made - pixels) ** 2).mean()
