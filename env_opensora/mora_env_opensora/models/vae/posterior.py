"""The output of the encoder: a Gaussian per latent cell."""

from __future__ import annotations

import torch
from torch import Tensor


class DiagonalGaussian:
    """`mean` and `logvar` (B, C, T, h, w); logvar is clamped to [-30, 20]."""

    def __init__(self, moments: Tensor) -> None:
        """Args: moments: (B, 2C, T, h, w), means before log variances."""
        self.mean, logvar = moments.chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw a sample. None means torch's global generator; noise is drawn on the generator's device."""
        where = self.mean.device if generator is None else generator.device
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype, device=where)
        return self.at(noise)

    def at(self, noise: Tensor) -> Tensor:
        """The sample for standard normal `noise`: mean + std * noise."""
        return self.mean + self.std * noise.to(self.mean)

    def mode(self) -> Tensor:
        return self.mean
