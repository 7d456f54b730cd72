"""A tiny Stable Diffusion 3 that draws moving shapes, pre-trained in a few minutes on one CPU core.

The autoencoder learns every frame as a picture; the transformer learns first frames. The real code loads, trains and
serves it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from mora_environment.tiny_training import Phase, quieten, train_tiny, weighted_error
from safetensors.torch import load_file

from mora_env_sd3.text_encoders import TextEmbedding, TextEncoders
from mora_env_sd3.tiny import make_tiny

_MAX_TEXT_TOKENS = 32
_TEXT_DROPOUT = 0.1  # trains the unconditional half of guidance
_SCHEDULE_SHIFT = 3.0  # shift of the noise levels, as in the sampler
_DIVERGENCE_WEIGHT = 1e-6  # weight of the posterior's divergence from a standard normal
AUTOENCODER = Phase("image autoencoder", num_steps=450, batch_size=16, learning_rate=3e-3)
TRANSFORMER = Phase("image transformer", num_steps=900, batch_size=32, learning_rate=2e-3)


def make_shapes(folder: Path, shapes: Path) -> None:
    """Write the pre-trained model in diffusers' layout; `shapes` is a folder from `mora_data.shapes_corpus`."""
    torch.set_num_threads(1)
    captions: list[str] = json.loads((shapes / "captions.json").read_text(encoding="utf-8"))
    clips = load_file(shapes / "clips.safetensors")["pixels"]
    frames = clips.permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0  # (N, F, 3, H, W)
    side = frames.shape[-1] // 8
    make_tiny(
        folder, corpus=[f"{text} [Mod]" for text in captions], patch_size=1, sample_size=side, pos_embed_max_size=8
    )
    autoencoder = AutoencoderKL.from_pretrained(folder / "vae").train()
    train_autoencoder(autoencoder, frames.flatten(0, 1))
    posterior = posterior_of(autoencoder.eval(), frames[:, 0])
    autoencoder.register_to_config(
        shift_factor=float(posterior[0].mean()), scaling_factor=float(1.0 / posterior[0].std())
    )
    autoencoder.save_pretrained(folder / "vae")
    transformer = SD3Transformer2DModel.from_pretrained(folder / "transformer").train()
    encoders = TextEncoders(str(folder), torch.float32, torch.device("cpu"), _MAX_TEXT_TOKENS)
    texts = {caption: encoders.embed(caption) for caption in sorted({"", *captions})}
    mean, std = (
        (part - shift) * autoencoder.config.scaling_factor
        for part, shift in zip(posterior, (autoencoder.config.shift_factor, 0.0), strict=True)
    )
    train_transformer(transformer, mean, std, [texts[caption] for caption in captions], texts[""])
    transformer.save_pretrained(folder / "transformer")


def train_autoencoder(autoencoder: AutoencoderKL, pictures: torch.Tensor, phase: Phase = AUTOENCODER) -> float:
    """Train on pictures (N, 3, H, W) in [-1, 1]; returns the last mean loss."""
    quieten(autoencoder.quant_conv or autoencoder.encoder.conv_out)

    def loss_of(indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        pixels = pictures[indices]
        posterior = autoencoder.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        made = autoencoder.decode(latents, return_dict=False)[0]
        return weighted_error(made, pixels) + _DIVERGENCE_WEIGHT * posterior.kl().mean()

    return train_tiny(autoencoder.parameters(), phase, len(pictures), loss_of, seed=1)


def train_transformer(
    transformer: SD3Transformer2DModel,
    mean: torch.Tensor,
    std: torch.Tensor,
    texts: list[TextEmbedding],
    unconditional: TextEmbedding,
) -> float:
    """Train rectified flow (velocity = noise - x0) on scaled posteriors (N, C, h, w); returns the last mean loss."""
    joint = torch.stack([text.joint for text in texts])
    pooled = torch.stack([text.pooled for text in texts])

    def loss_of(indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        size = len(indices)
        dropped = torch.rand(size, generator=generator) < _TEXT_DROPOUT
        sigma = torch.sigmoid(torch.randn(size, generator=generator))
        sigma = _SCHEDULE_SHIFT * sigma / (1.0 + (_SCHEDULE_SHIFT - 1.0) * sigma)
        clean = mean[indices] + std[indices] * torch.randn(mean[indices].shape, generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        weight = sigma.view(-1, 1, 1, 1)
        velocity = transformer(
            hidden_states=(1.0 - weight) * clean + weight * noise,
            timestep=sigma * 1000.0,
            encoder_hidden_states=torch.where(dropped.view(-1, 1, 1), unconditional.joint, joint[indices]),
            pooled_projections=torch.where(dropped.view(-1, 1), unconditional.pooled, pooled[indices]),
            return_dict=False,
        )[0]
        return torch.nn.functional.mse_loss(velocity, noise - clean)

    return train_tiny(transformer.parameters(), TRANSFORMER, len(mean), loss_of, seed=2)


@torch.no_grad()
def posterior_of(autoencoder: AutoencoderKL, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every picture's latents, (N, C, h, w), unscaled."""
    parts = [autoencoder.encode(batch).latent_dist for batch in pictures.split(64)]
    return torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts])
