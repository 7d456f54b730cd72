"""A UNet model's autoencoder: pictures to scaled latents and back, in the dtype of its weights. Plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL


class Autoencoder:
    """The autoencoder with the scaling of its configuration."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae
        self.scale = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels of a side for each cell of the latents

    def encode(self, pixels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to scaled latents; each seed draws one sample of the posterior.

        Differentiable in the pictures.
        """
        posterior = self._posterior(pixels)
        noise = [torch.randn(posterior.mean[:1].shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        sample = posterior.mean + posterior.std * torch.cat(noise).to(posterior.mean)
        mean, std = self._statistics(sample)
        return (sample - mean) * self.vae.config.scaling_factor / std

    def mode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to the modes of their posteriors, unscaled; differentiable."""
        found: torch.Tensor = self._posterior(pixels).mode()
        return found

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents to pictures: (B, 3, H, W) float32, about [-1, 1]."""
        latents = latents.to(self.vae.dtype)
        mean, std = self._statistics(latents)
        unscaled = latents * std / self.vae.config.scaling_factor + mean
        images: torch.Tensor = self.vae.decode(unscaled, return_dict=False)[0]
        # dense in C order, as it arrives in another process, because later layers may choose algorithms by strides
        return images.float().contiguous()

    def _posterior(self, pixels: torch.Tensor) -> Any:
        return self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist

    def _statistics(self, latents: torch.Tensor) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """Mean and standard deviation of each channel where the configuration names them, else 0 and 1."""
        config = self.vae.config
        if config.get("latents_mean") is None or config.get("latents_std") is None:
            return 0.0, 1.0
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in (config.latents_mean, config.latents_std)
        )
        return mean, std
