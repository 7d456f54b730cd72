"""The modulation embeddings z_i, their optimizer, and the modulation factors alpha_i (paper section 3.2, algorithm 1).

Every coordinator rank owns a copy; DeepSpeed's reduction keeps the copies equal. z_i is float32 whatever the agents'
dtype: at a learning rate of 1e-5 a bfloat16 z would never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from mora_training.sharded_optimizer import GradientReport, ShardedOptimizer
from mora_training.training_settings import OptimizerSettings

AlphaReading = Literal["norm", "share", "one"]


def random_rows(like: torch.Tensor, *, seed: int) -> torch.Tensor:
    """Ablation RI of table 5: a random z_i in R^(1 x d_i), standard normal, float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, like.shape[-1], generator=generator)


def modulation_factors(embeddings: Mapping[str, torch.Tensor], reading: AlphaReading) -> dict[str, float]:
    """alpha_i of every agent from its z_i.

    Args:
        embeddings: z_i by agent, (rows, d_i) float32, after this step's update.
        reading: `norm` = ||z_i||_2 / n, as the paper writes it; `share` = n ||z_i|| / sum of norms; `one` = 1.
    """
    norms = {name: float(z.detach().double().norm()) for name, z in embeddings.items()}
    n = len(norms)
    if reading == "norm":
        return {name: norm / n for name, norm in norms.items()}
    total = sum(norms.values())
    if reading == "share" and total > 0.0:
        return {name: n * norm / total for name, norm in norms.items()}
    return dict.fromkeys(norms, 1.0)


class Modulation(torch.nn.Module):
    """All z_i of a job with their two-phase optimizer.

    Args:
        initial: first value of each z_i by agent name, (rows, d_i); the order of agents is the order of all sums.
        alpha: reading of the modulation factor.
        kind: optimizer of the embeddings; used without weight decay, which would shrink every alpha_i over time.

    The coordinators' process group must have been joined.
    """

    def __init__(self, initial: Mapping[str, torch.Tensor], alpha: AlphaReading, kind: Literal["adamw", "sgd"]) -> None:
        super().__init__()
        self._alpha = alpha
        self.embeddings = torch.nn.ParameterDict({name: z.float().clone() for name, z in initial.items()})
        settings = OptimizerSettings(kind=kind, weight_decay=0.0, zero_stage=1)
        self.optimizer = ShardedOptimizer(self, [[z] for z in self.embeddings.values()], settings)

    def embedding(self, agent: str) -> torch.Tensor:
        """Current z_i of an agent, detached: (rows, d_i) float32."""
        z: torch.Tensor = self.embeddings[agent].detach()
        return z

    def all_embeddings(self) -> dict[str, torch.Tensor]:
        """Current z_i of every agent that has one, detached."""
        return {name: self.embedding(name) for name in self.embeddings}

    def accumulate(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Add dL/dz_i of one micro-batch, in the order of the agents, not of the gradients."""
        for name, z in self.embeddings.items():
            gradient = gradients[name].to(z.device, torch.float32)
            z.grad = gradient.clone() if z.grad is None else z.grad.add_(gradient)

    def prepare(self) -> GradientReport:
        """Average the accumulated gradients over all replicas (a collective) and report finiteness and norm."""
        return self.optimizer.prepare()

    def commit(self, learning_rates: Mapping[str, float], clip: float) -> None:
        """Step every z_i, each with its agent's rate, on gradients scaled by `clip`."""
        self.optimizer.commit([learning_rates[name] for name in self.embeddings], clip)

    def factors(self) -> dict[str, float]:
        """alpha_i of the current embeddings, by agent."""
        return modulation_factors({name: z for name, z in self.embeddings.items()}, self._alpha)

    def norms(self) -> dict[str, float]:
        """||z_i||_2 by agent."""
        return {name: float(z.detach().double().norm()) for name, z in self.embeddings.items()}
