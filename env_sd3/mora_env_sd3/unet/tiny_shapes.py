"""What the makers of tiny UNet models that draw moving shapes share: data, autoencoder, training of the UNet.

The autoencoder learns every frame as a picture; the UNet learns first frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from mora_environment.tiny_training import Phase, train_tiny
from safetensors.torch import load_file
from torch import Tensor, nn

from mora_env_sd3.tiny_shapes import posterior_of, train_autoencoder
from mora_env_sd3.unet.noise_objective import NoiseObjective

# Longer than for Stable Diffusion 3, because latents of four channels tell circles from squares only after more steps.
AUTOENCODER = Phase("image autoencoder", num_steps=800, batch_size=16, learning_rate=3e-3)
Predict = Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Shapes:
    """A folder from `mora_data.shapes_corpus`."""

    captions: list[str]  # N
    frames: Tensor  # (N, F, 3, H, W) in [-1, 1]

    @classmethod
    def read(cls, folder: Path) -> Shapes:
        """Read the whole folder."""
        captions: list[str] = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
        pixels = load_file(folder / "clips.safetensors")["pixels"]
        return cls(captions, pixels.permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0)

    def words(self) -> set[str]:
        """The words of all captions."""
        return {word for caption in self.captions for word in caption.split()}


@dataclass(frozen=True)
class ScaledPosterior:
    """Mean and standard deviation of pictures' latents as the UNet learns them, (N, C, h, w)."""

    mean: Tensor
    std: Tensor

    def sample(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """One sample of the posterior of each of these pictures."""
        mean = self.mean[indices]
        return mean + self.std[indices] * torch.randn(mean.shape, generator=generator)


def make_autoencoder(folder: Path, frames: Tensor) -> ScaledPosterior:
    """Train the autoencoder in a folder on frames (N, F, 3, H, W), write it, and return the first frames' latents.

    Its latents get mean 0 and standard deviation 1 in each channel, without a shift in the configuration, because the
    published models have none.
    """
    autoencoder = AutoencoderKL.from_pretrained(folder).train()
    train_autoencoder(autoencoder, frames.flatten(0, 1), AUTOENCODER)
    autoencoder.eval()
    standardise(autoencoder, posterior_of(autoencoder, frames[:, 0])[0])
    autoencoder.register_to_config(scaling_factor=1.0)
    autoencoder.save_pretrained(folder)
    return ScaledPosterior(*posterior_of(autoencoder, frames[:, 0]))


@torch.no_grad()
def standardise(autoencoder: AutoencoderKL, latents: Tensor) -> None:
    """Move the mean and the scale of each channel of `latents` (N, C, h, w) into the 1x1 convolutions around them.

    The autoencoder decodes what it encodes as before.
    """
    mean, scale = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    into, out = autoencoder.quant_conv, autoencoder.post_quant_conv
    half = len(mean)
    into.weight[:half] /= scale.view(-1, 1, 1, 1)
    into.bias[:half] = (into.bias[:half] - mean) / scale
    into.bias[half:] -= 2.0 * scale.log()  # these channels are log variances
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= scale.view(1, -1, 1, 1)


def train_unet(
    unet: nn.Module, phase: Phase, alphas_cumprod: Tensor, clean: ScaledPosterior, predict: Predict, *, seed: int
) -> float:
    """Train on predicted noise, weighted by min-SNR; returns the last mean loss.

    Args:
        predict: the model's prediction for noisy latents and timesteps of the samples with the given indices; all its
            random numbers come from the generator.
    """
    objective = NoiseObjective(alphas_cumprod, gamma=5.0)

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        latents = clean.sample(indices, generator)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(len(alphas_cumprod), (len(indices),), generator=generator)
        noisy = objective.noisy(latents, noise, timesteps)
        return objective.weighted_error(predict(noisy, timesteps, indices, generator), noise, timesteps)

    return train_tiny(unet.parameters(), phase, len(clean.mean), loss_of, seed=seed)
