"""The own loss of a UNet agent: the noise of a picture's latents, predicted, weighted by min-SNR. Plain torch.

All randomness of a sample comes from one CPU generator with its seed, so the loss of a batch is the mean of the losses
of its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

_NOISE_STREAM = 0x657073  # keeps the noise of the loss apart from the initial noise of the same seed

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # noisy latents and timesteps int64 (B,) to noise


class NoiseObjective:
    """Mean over a batch of w * (mean squared error of the predicted noise), w = min(SNR, gamma) / SNR.

    Args:
        alphas_cumprod: of the training schedule, one for each timestep; SNR = a / (1 - a).
        gamma: limit of the SNR; lower values give less weight to timesteps with little noise.
    """

    def __init__(self, alphas_cumprod: torch.Tensor, gamma: float) -> None:
        self._alphas_cumprod = alphas_cumprod.double().cpu()
        self._gamma = gamma

    def loss(self, predict: Predict, clean: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Scalar float32, differentiable in the latents and through `predict`.

        Args:
            predict: the model without guidance.
            clean: scaled latents (B, C, h, w).
            seeds: of each sample, for its timestep and noise.
        """
        draws = [self.draw(seed, clean[:1].shape) for seed in seeds]
        timesteps = torch.tensor([timestep for timestep, _ in draws])
        noise = torch.cat([noise for _, noise in draws]).to(clean)
        predicted = predict(self.noisy(clean, noise, timesteps), timesteps.to(clean.device))
        return self.weighted_error(predicted, noise, timesteps)

    def draw(self, seed: int, shape: torch.Size) -> tuple[int, torch.Tensor]:
        """Timestep and noise of a sample."""
        generator = torch.Generator().manual_seed(seed ^ _NOISE_STREAM)
        timestep = int(torch.randint(len(self._alphas_cumprod), (), generator=generator))
        return timestep, torch.randn(shape, generator=generator)

    def noisy(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """sqrt(a) * clean + sqrt(1 - a) * noise, with a of each sample's timestep (CPU)."""
        alpha = self._alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return alpha.sqrt().to(clean) * clean + (1.0 - alpha).sqrt().to(clean) * noise

    def weighted_error(self, predicted: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The loss of a prediction, float32."""
        errors = (predicted.float() - noise.float()).square().flatten(1).mean(dim=1)
        return (self.weights(timesteps).to(errors) * errors).mean()

    def weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Weight of each sample's error, float64 (B,)."""
        alpha = self._alphas_cumprod[timesteps]
        ratio = alpha / (1.0 - alpha)
        return ratio.clamp(max=self._gamma) / ratio
