"""A tiny SEINE that moves shapes on and from one picture to another, pre-trained in some minutes on one CPU core.

The autoencoder learns every frame as a picture, the UNet the published objective. The text encoder stays random. The
real code loads, trains and serves the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mora_environment.tiny_training import Phase, quieten, train_tiny, weighted_error
from safetensors.torch import load_file
from torch import Tensor

from mora_env_svd.clip_size import ClipSize
from mora_env_svd.clip_text import TextEncoder
from mora_env_svd.frame_coder import Posterior
from mora_env_svd.seine.conditioning import MaskedFrameCoder
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.objective import TransitionObjective
from mora_env_svd.seine.tiny import UNET_CONFIG, make_tiny
from mora_env_svd.seine.weights.weights_folder import load_unet, save_unet
from mora_env_svd.tiny_autoencoder import DIVERGENCE_WEIGHT, scale_latents

AUTOENCODER = Phase("picture autoencoder", num_steps=450, batch_size=16, learning_rate=3e-3)
UNET_PHASE = Phase("transition UNet", num_steps=700, batch_size=12, learning_rate=2e-3)
MASKS = ("first1", "first2", "onelast1", "onelast1")  # one picture, continuation, and most often transition
_TEXT_DROPOUT = 0.1  # trains the half of guidance without text
_UNET = UNET_CONFIG | {"block_out_channels": [64, 64]}


def make_shapes(folder: Path, shapes: Path) -> None:
    """Write the pre-trained models in the published layout; `shapes` is a folder from `mora_data.shapes_corpus`."""
    from diffusers import AutoencoderKL

    torch.set_num_threads(1)
    captions: list[str] = json.loads((shapes / "captions.json").read_text(encoding="utf-8"))
    clips = load_file(shapes / "clips.safetensors")["pixels"].permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
    make_tiny(folder, unet=_UNET)
    base = folder / "base"
    vae = AutoencoderKL.from_pretrained(base / "vae", use_safetensors=True)
    train_autoencoder(vae, clips.flatten(0, 1))
    targets = scale_latents(vae, vae.post_quant_conv, clips)
    vae.save_pretrained(base / "vae")
    encoder = TextEncoder(str(base), torch.float32, torch.device("cpu"))
    rows = {caption: encoder.rows_of(caption) for caption in sorted({"", *captions})}
    model = load_unet(folder / "unet").train()
    size = ClipSize(clips.shape[1], *clips.shape[-2:])
    objective = TransitionObjective(model, MaskedFrameCoder(vae), size, MASKS)
    train_unet(model, objective, clips[:, 0], targets, [rows[caption] for caption in captions], rows[""])
    save_unet(model, folder / "unet")


def train_autoencoder(vae: Any, pictures: Tensor) -> float:
    """Train on pictures (N, 3, H, W) in [-1, 1]; returns the last mean loss."""
    vae.train().requires_grad_(True)
    quieten(vae.quant_conv)

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        pixels = pictures[indices]
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        return weighted_error(vae.decode(latents).sample, pixels) + DIVERGENCE_WEIGHT * posterior.kl().mean()

    loss = train_tiny(vae.parameters(), AUTOENCODER, len(pictures), loss_of, seed=1)
    vae.eval().requires_grad_(False)
    return loss


def train_unet(
    model: SeineUNet,
    objective: TransitionObjective,
    pictures: Tensor,
    targets: Posterior,
    texts: list[Tensor],
    unconditional: Tensor,
) -> float:
    """Train the published objective; returns the last mean loss.

    Args:
        pictures: first frames (N, 3, H, W) in [-1, 1].
        targets: posteriors of all clips.
        texts: encoder rows of each clip's caption.
    """

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        number = len(indices)
        dropped = torch.rand(number, generator=generator) < _TEXT_DROPOUT
        rows = [unconditional if drop else texts[index] for drop, index in zip(dropped, indices.tolist(), strict=True)]
        seeds: list[int] = torch.randint(2**31, (number,), generator=generator).tolist()
        own = [Posterior(targets.mean[index], targets.std[index]) for index in indices]
        return objective.loss(None, rows, pictures[indices], own, seeds)

    loss = train_tiny(model.parameters(), UNET_PHASE, len(pictures), loss_of, seed=2)
    model.eval()
    return loss
