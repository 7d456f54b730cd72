"""The forward diffusion of Open-Sora-Plan v1.2: 1000 steps, linear betas, min-SNR loss weights. Needs only torch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]
TRAIN_STEPS = 1000


class NoiseSchedule:
    """abar_t = cumulative product of 1 - beta_t, beta from 1e-4 to 2e-2, float32."""

    def __init__(self) -> None:
        self.alphas_cumprod = torch.cumprod(1.0 - torch.linspace(1e-4, 2e-2, TRAIN_STEPS, dtype=torch.float32), dim=0)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        """sqrt(abar) clean + sqrt(1 - abar) noise."""
        signal, spread = self._roots(clean, timesteps_B)
        return signal * clean + spread * noise

    def target(self, kind: PredictionType, clean: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        """The target of the model: the noise, or the velocity sqrt(abar) noise - sqrt(1 - abar) clean."""
        if kind == "epsilon":
            return noise
        signal, spread = self._roots(clean, timesteps_B)
        return signal * noise - spread * clean

    def snr(self, timesteps: Tensor) -> Tensor:
        """abar / (1 - abar), float32."""
        abar = self.alphas_cumprod.to(timesteps.device)[timesteps]
        return abar / (1 - abar)

    def min_snr_weight(self, kind: PredictionType, gamma: float | None, timesteps: Tensor) -> Tensor:
        """min(SNR, gamma) / SNR for epsilon, min(SNR, gamma) / (SNR + 1) for velocity; ones if gamma is None."""
        snr = self.snr(timesteps)
        if gamma is None:
            return torch.ones_like(snr)
        return snr.clamp(max=gamma) / (snr if kind == "epsilon" else snr + 1)

    def _roots(self, like: Tensor, timesteps_B: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.alphas_cumprod.to(like.device)[timesteps_B].view(-1, *(1,) * (like.ndim - 1))
        return abar.sqrt().to(like.dtype), (1 - abar).sqrt().to(like.dtype)
