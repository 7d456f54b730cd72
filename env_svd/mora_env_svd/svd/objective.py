"""The training objective: a clip's latents, denoised at a random noise level, by the preconditioning of EDM.

All randomness of a sample comes from one CPU generator with its seed, so the loss of a batch is the mean of the losses
of its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mora_env_svd.clip_size import ClipSize
from mora_env_svd.errors import InputError
from mora_env_svd.frame_coder import Posterior
from mora_env_svd.svd.conditioning import ClipNumbers, TemporalFrameCoder, fit_pictures, with_rows
from mora_env_svd.svd.picture_encoder import PictureEncoder

LOG_SIGMA_MEAN = 0.7
LOG_SIGMA_STD = 1.6


class NoiseDraw(NamedTuple):
    """The random numbers of one sample, in the order in which they are drawn."""

    sigma: Tensor  # scalar
    noise: Tensor  # (F, 4, h, w)
    target: Tensor  # (F, 4, h, w), to sample the target's posterior
    augmentation: Tensor  # (3, H, W), on the first frame

    @classmethod
    def of(cls, seed: int, size: ClipSize) -> NoiseDraw:
        """Draw what belongs to a seed. The logarithm of sigma is normal."""
        generator = torch.Generator().manual_seed(seed)
        sigma = torch.exp(LOG_SIGMA_MEAN + LOG_SIGMA_STD * torch.randn((), generator=generator))
        noise, target = (torch.randn(size.frame_latents_shape, generator=generator) for _ in range(2))
        return cls(sigma, noise, target, torch.randn((3, size.height, size.width), generator=generator))


@dataclass(frozen=True)
class Preconditioning:
    """EDM's factors at noise levels sigma of any shape, for latents with a standard deviation of 1."""

    sigma: Tensor

    @property
    def skip(self) -> Tensor:
        return 1.0 / (self.sigma**2 + 1.0)

    @property
    def out(self) -> Tensor:
        return -self.sigma / (self.sigma**2 + 1.0).sqrt()

    @property
    def input(self) -> Tensor:
        return 1.0 / (self.sigma**2 + 1.0).sqrt()

    @property
    def timestep(self) -> Tensor:
        return self.sigma.log() / 4.0

    @property
    def weight(self) -> Tensor:
        return (self.sigma**2 + 1.0) / self.sigma**2


def denoising_loss(
    model: Any, clean: Tensor, noise: Tensor, sigma: Tensor, pictures: Tensor, rows: Tensor, time_ids: Tensor
) -> Tensor:
    """The weighted squared error of the denoised latents, float32 scalar: the mean over all elements.

    Args:
        model: the UNet.
        clean: scaled latents (B, F, 4, h, w).
        noise: standard normal, of the same shape.
        sigma: (B,).
        pictures: unscaled latents (B, 4, h, w) of the pictures that the clips begin with.
        rows: (B, L, D), what the model attends to.
        time_ids: (B, 3).
    """
    factors = Preconditioning(sigma[:, None, None, None, None])
    noisy = clean + factors.sigma * noise
    shown = pictures[:, None].expand(-1, clean.shape[1], -1, -1, -1)
    inputs = torch.cat([factors.input * noisy, shown], dim=2).to(model.dtype)
    timesteps = Preconditioning(sigma).timestep
    predicted = model(inputs, timesteps, rows, added_time_ids=time_ids, return_dict=False)[0].float()
    denoised = factors.skip * noisy + factors.out * predicted
    return (factors.weight * (denoised - clean) ** 2).mean()


class ClipObjective:
    """Losses of the UNet on clips of one size. It has no state of its own."""

    def __init__(
        self, model: Any, coder: TemporalFrameCoder, encoder: PictureEncoder, size: ClipSize, numbers: ClipNumbers
    ) -> None:
        self._model = model
        self._coder = coder
        self._encoder = encoder
        self._size = size
        self._numbers = numbers

    def loss(
        self, z: Tensor | None, images: Tensor, targets: Sequence[Posterior], draws: Sequence[NoiseDraw]
    ) -> Tensor:
        """`denoising_loss` of the batch.

        Differentiable in z, in the model, and in the images, through their latents and through their embeddings.

        Args:
            z: modulation rows (rows, D), or None.
            images: first frames (B, 3, h, w) in [-1, 1]; other sizes are resized.
            targets: posterior of each target clip, mean and std (F, 4, h, w).
            draws: one for each sample.

        Raises:
            InputError: the batch sizes differ or a shape does not fit.
        """
        if not len(draws) or not len(images) == len(targets) == len(draws):
            raise InputError(
                f"batch: expected as many images as targets and seeds, at least one; got {len(images)} images, "
                f"{len(targets)} targets, {len(draws)} seeds"
            )
        device = self._coder.device
        sigma, noise, target_noise, augmentation = (
            torch.stack(column).to(device) for column in zip(*draws, strict=True)
        )
        mean, std = (torch.stack(column).to(device) for column in zip(*targets, strict=True))
        clean = Posterior(mean, std).scaled(target_noise)
        fitted = fit_pictures(images, self._size).to(device)
        pictures = self._coder.modes(fitted + self._numbers.noise_aug_strength * augmentation)
        rows = with_rows(self._encoder.embeddings(images), z)
        time_ids = self._numbers.time_ids(len(draws), rows)
        return denoising_loss(self._model, clean, noise, sigma, pictures, rows, time_ids)
