"""The training objective: flow matching, as Wan was trained. Plain torch.

With a noise level s, noisy latents are (1 - s) * clean + s * noise, and the model predicts noise - clean. s is the
logistic function of a standard normal number (a logit-normal distribution), as Wan's report says (arXiv 2503.20314).
All randomness of a sample comes from one CPU generator with its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mora_env_svd.errors import InputError
from mora_env_svd.wan.conditioning import Condition, Conditioner
from mora_env_svd.wan.denoiser import TRAIN_STEPS, Denoiser
from mora_env_svd.wan.layout import WanSize


class NoiseDraw(NamedTuple):
    """The random numbers of one sample, in the order in which they are drawn."""

    sigma: Tensor  # scalar in (0, 1)
    noise: Tensor  # (C, f, h, w)

    @classmethod
    def of(cls, seed: int, size: WanSize) -> NoiseDraw:
        """Draw what belongs to a seed."""
        generator = torch.Generator().manual_seed(seed)
        sigma = torch.sigmoid(torch.randn((), generator=generator))
        return cls(sigma, torch.randn(size.latent_shape, generator=generator))


class FlowObjective:
    """Losses of the transformer on clips of one size. It has no state of its own."""

    def __init__(self, denoiser: Denoiser, conditioner: Conditioner) -> None:
        self._denoiser = denoiser
        self._conditioner = conditioner

    def loss(
        self,
        z: Tensor | None,
        texts: Sequence[Tensor],
        images: Tensor,
        targets: Sequence[Tensor],
        seeds: Sequence[int],
    ) -> Tensor:
        """Mean squared error of the predicted velocity over the generated latents; float32 scalar.

        Where the layout replaces the first latent frame, that frame is given and is not part of the loss.
        Differentiable in z, in the images and in the model.

        Args:
            z: modulation rows (rows, D), or None.
            texts: encoder rows, one tensor for each sample.
            images: first frames (B, 3, H, W) in [-1, 1].
            targets: normalised latents of the target clips, (C, f, h, w).
            seeds: one for each sample.

        Raises:
            InputError: the batch sizes differ or a shape does not fit.
        """
        sizes = {"images": len(images), "targets": len(targets), "seeds": len(seeds)}
        if not texts or set(sizes.values()) != {len(texts)}:
            raise InputError(f"batch: expected as many of each as the {len(texts)} texts, at least one; got {sizes}")
        denoiser, conditioner = self._denoiser, self._conditioner
        draws = [NoiseDraw.of(seed, conditioner.size) for seed in seeds]
        sigma = torch.stack([draw.sigma for draw in draws]).to(denoiser.device)
        noise = torch.stack([draw.noise for draw in draws]).to(denoiser.device)
        clean = torch.stack(list(targets)).to(denoiser.device)
        level = sigma.view(-1, 1, 1, 1, 1)
        condition = Condition.stacked([conditioner.condition(given) for given in conditioner.of_images(images)])
        predicted = denoiser.velocity(
            (1.0 - level) * clean + level * noise, sigma * TRAIN_STEPS, denoiser.text(texts, z), condition
        )
        first = int(denoiser.layout.replaces_first)
        return torch.nn.functional.mse_loss(predicted.float()[:, :, first:], (noise - clean)[:, :, first:])
