"""What every contestant trains: two stages of equal cost, data, optimizer. Plain torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BATCH_SIZE = 256
LEARNING_RATE = 0.05
SEED = 20


def first_stage(width: int) -> nn.Module:
    """(B, width) -> (B, width)."""
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())


def second_stage(width: int) -> nn.Module:
    """(B, width) -> (B, width); its output is compared with the target."""
    torch.manual_seed(SEED + 1)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


def loss_of(output: Tensor, target: Tensor) -> Tensor:
    """Scalar."""
    return nn.functional.mse_loss(output, target)


def optimizer_of(stage: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of one stage."""
    return torch.optim.SGD(stage.parameters(), lr=LEARNING_RATE)


def batch(width: int) -> tuple[Tensor, Tensor]:
    """x and target, (256, width) float32; the same in every step."""
    generator = torch.Generator().manual_seed(SEED + 2)
    x, target = (torch.randn(BATCH_SIZE, width, generator=generator) for _ in range(2))
    return x, target


def named_weights(first: nn.Module, second: nn.Module) -> dict[str, Tensor]:
    """Weights of both stages by names such as `first.0.weight`."""
    stages = {"first": first, "second": second}
    return {f"{name}.{key}": value for name, stage in stages.items() for key, value in stage.state_dict().items()}
