"""A tiny Stable Video Diffusion that animates first frames of moving shapes, pre-trained in some minutes on one core.

The first frame of a clip tells the shape's direction and speed by its place, so the motion follows from the picture
alone. The image encoder stays random; the latents of the picture tell the place. The real code loads, trains and serves
the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mora_environment.tiny_training import Phase, quieten, train_tiny, weighted_error
from safetensors.torch import load_file
from torch import Tensor

from mora_env_svd.frame_coder import Posterior
from mora_env_svd.svd.conditioning import ClipNumbers
from mora_env_svd.svd.models import SvdModels
from mora_env_svd.svd.objective import LOG_SIGMA_MEAN, LOG_SIGMA_STD, denoising_loss
from mora_env_svd.svd.options import SvdOptions
from mora_env_svd.svd.tiny import UNET, VAE, make_tiny
from mora_env_svd.tiny_autoencoder import DIVERGENCE_WEIGHT, scale_latents

AUTOENCODER = Phase("temporal autoencoder", num_steps=400, batch_size=8, learning_rate=2e-3)
UNET_PHASE = Phase("video UNet", num_steps=650, batch_size=12, learning_rate=2e-3)
_DROPOUT = 0.1  # of the picture, which trains the half of guidance without it
_ENCODED_AT_ONCE = 64
_UNET = UNET | {"block_out_channels": [64, 64]}  # two channels for each group of its norms


def make_shapes(folder: Path, shapes: Path) -> None:
    """Write the pre-trained model in diffusers' layout; `shapes` is a folder from `mora_data.shapes_corpus`."""
    torch.set_num_threads(1)
    clips = load_file(shapes / "clips.safetensors")["pixels"].permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
    make_tiny(folder, unet=_UNET, vae=VAE)
    num_frames, height, width = clips.shape[1], *clips.shape[-2:]
    options = SvdOptions(model=str(folder), num_frames=num_frames, height=height, width=width)
    models = SvdModels.load(options, torch.device("cpu"))
    vae = models.coder.vae
    train_autoencoder(vae, clips)
    targets = scale_latents(vae, vae.decoder.conv_in, clips)
    vae.save_pretrained(folder / "vae")
    train_unet(models, clips[:, 0], targets)
    models.unet.save_pretrained(folder / "unet")


def train_autoencoder(vae: Any, clips: Tensor) -> float:
    """Train on pieces of clips (N, F, 3, H, W) in [-1, 1], of all lengths; returns the last mean loss."""
    vae.train().requires_grad_(True)
    quieten(vae.quant_conv)
    num_frames = clips.shape[1]

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        length = int(torch.randint(1, num_frames + 1, (), generator=generator))
        start = int(torch.randint(num_frames - length + 1, (), generator=generator))
        pixels = clips[indices, start : start + length].flatten(0, 1)
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        made = vae.decode(latents, num_frames=length).sample
        return weighted_error(made, pixels) + DIVERGENCE_WEIGHT * posterior.kl().mean()

    loss = train_tiny(vae.parameters(), AUTOENCODER, len(clips), loss_of, seed=1)
    vae.eval().requires_grad_(False)
    return loss


def train_unet(models: SvdModels, pictures: Tensor, targets: Posterior) -> float:
    """Train the published objective; returns the last mean loss.

    Args:
        pictures: first frames (N, 3, H, W) in [-1, 1].
        targets: posteriors of all clips.
    """
    numbers = ClipNumbers()
    with torch.no_grad():
        embeddings = torch.cat([models.encoder.embeddings(batch) for batch in pictures.split(_ENCODED_AT_ONCE)])

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        number, mean = len(indices), targets.mean[indices]
        clean = Posterior(mean, targets.std[indices]).scaled(torch.randn(mean.shape, generator=generator))
        noise = torch.randn(mean.shape, generator=generator)
        sigma = torch.exp(LOG_SIGMA_MEAN + LOG_SIGMA_STD * torch.randn(number, generator=generator))
        given = pictures[indices]
        given = given + numbers.noise_aug_strength * torch.randn(given.shape, generator=generator)
        shown = (torch.rand(number, generator=generator) >= _DROPOUT).float()
        with torch.no_grad():
            modes = models.coder.vae.encode(given).latent_dist.mode() * shown[:, None, None, None]
        rows = embeddings[indices] * shown[:, None, None]
        return denoising_loss(models.unet, clean, noise, sigma, modes, rows, numbers.time_ids(number, rows))

    models.unet.train()
    loss = train_tiny(models.unet.parameters(), UNET_PHASE, len(pictures), loss_of, seed=2)
    models.unet.eval()
    return loss
