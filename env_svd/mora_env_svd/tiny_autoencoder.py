"""What the pre-training of the tiny models shares: frames to latents whose spread is the one that samplers expect."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mora_env_svd.frame_coder import LATENT_SCALE, Posterior

DIVERGENCE_WEIGHT = 1e-6  # weight of the posterior's divergence from a standard normal
_ENCODED_AT_ONCE = 64


@torch.no_grad()
def scale_latents(vae: Any, first_of_decoder: torch.nn.Conv2d, clips: Tensor) -> Posterior:
    """Fold a factor into the autoencoder so that its latents times `LATENT_SCALE` have a standard deviation of 1.

    Args:
        first_of_decoder: the convolution that takes the latents.
        clips: (N, F, 3, H, W) in [-1, 1].

    Returns:
        posteriors of all clips, mean and std (N, F, 4, h, w), unscaled.
    """
    frames = clips.flatten(0, 1)
    parts = [Posterior.of_moments(vae.encode(batch).latent_dist.parameters) for batch in frames.split(_ENCODED_AT_ONCE)]
    mean, std = (torch.cat(column).unflatten(0, clips.shape[:2]) for column in zip(*parts, strict=True))
    factor = 1.0 / (float(mean.std()) * LATENT_SCALE)
    last_of_encoder: torch.nn.Conv2d = vae.quant_conv
    assert last_of_encoder.bias is not None
    half = last_of_encoder.out_channels // 2
    last_of_encoder.weight[:half] *= factor
    last_of_encoder.bias[:half] *= factor
    last_of_encoder.bias[half:] += 2.0 * torch.tensor(factor).log()  # log variances
    first_of_decoder.weight /= factor
    return Posterior(mean * factor, std * factor)
