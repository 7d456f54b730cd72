"""A tiny Open-Sora-Plan model that animates moving shapes, pre-trained in some minutes on one CPU core.

The autoencoder first learns single frames, which is quick, then clips. The real code loads, trains and serves it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import torch
from mora_environment.tiny_training import Phase, quieten, train_tiny, weighted_error
from safetensors.torch import load_file
from torch import Tensor

from mora_env_opensora.conditioning import LATENT_SCALE, ClipSize, frame_mask, latent_mask, masked_latents
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint
from mora_env_opensora.models.vae.posterior import DiagonalGaussian
from mora_env_opensora.noise_schedule import TRAIN_STEPS
from mora_env_opensora.objective import DenoisingLoss, LossSettings, Target, stack_texts
from mora_env_opensora.text.encoder import TextEncoder
from mora_env_opensora.tiny import TRANSFORMER_CONFIG, VAE_CONFIG, make_tiny

_WIDTH = 96
_TEXT_DROPOUT = 0.1  # trains the unconditional half of guidance
_DIVERGENCE_WEIGHT = 1e-6  # weight of the posterior's divergence from a standard normal
_ENCODED_AT_ONCE = 64
# Sets of given frames, each equally often: the first (image to video), the first two (extension), both ends
# (connection).
GIVEN = ((0,), (0,), (0,), (0, 1), (0, -1))
FRAMES = Phase("video autoencoder, frames", num_steps=220, batch_size=16, learning_rate=2e-3)
CLIPS = Phase("video autoencoder, clips", num_steps=300, batch_size=16, learning_rate=2e-3)
TRANSFORMER = Phase("video transformer", num_steps=1000, batch_size=32, learning_rate=2e-3)
# 2-D blocks at full size halve the time of a step; deeper levels encode the motion.
_VAE = VAE_CONFIG | {
    "encoder_resnet_blocks": ["ResnetBlock2D", "ResnetBlock2D", "ResnetBlock2D", "ResnetBlock3D"],
    "decoder_resnet_blocks": ["ResnetBlock2D", "ResnetBlock2D", "ResnetBlock3D", "ResnetBlock3D"],
}


def make_shapes(folder: Path, shapes: Path) -> None:
    """Write the pre-trained models in upstream's layout; `shapes` is a folder from `mora_data.shapes_corpus`."""
    torch.set_num_threads(1)
    captions: list[str] = json.loads((shapes / "captions.json").read_text(encoding="utf-8"))
    pixels = load_file(shapes / "clips.safetensors")["pixels"]
    clips = pixels.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0  # (N, 3, F, H, W)
    size = ClipSize(*clips.shape[2:])
    transformer = TRANSFORMER_CONFIG | {
        "num_layers": 3, "attention_head_dim": _WIDTH // 2, "cross_attention_dim": _WIDTH, "patch_size": 1,
        "sample_size": list(size.latent_shape[2:]), "sample_size_t": size.latent_frames,
    }  # fmt: skip
    make_tiny(folder, transformer=transformer, vae=_VAE, corpus=[f"{text} [Mod]" for text in captions])
    vae = CausalVAEModel.from_pretrained(folder / "vae").train()
    train_autoencoder(vae, clips)
    targets = scale_latents(vae.eval().requires_grad_(False), clips)
    vae.save_pretrained(folder / "vae")
    model = OpenSoraInpaint.from_pretrained(folder / "transformer_i2v").train()
    encoder = TextEncoder(folder / "text_encoder", clean=False)
    rows = {caption: encoder.rows_of(caption) for caption in sorted({"", *captions})}
    conditions = torch.stack([_conditions(vae, clips, size, given) for given in GIVEN])
    train_transformer(model, targets, conditions, [rows[caption] for caption in captions], rows[""])
    model.save_pretrained(folder / "transformer_i2v")


def train_autoencoder(vae: CausalVAEModel, clips: Tensor) -> float:
    """Train on frames, then on clips (N, 3, F, H, W) in [-1, 1]; returns the last mean loss."""
    quieten(cast(torch.nn.Conv3d, vae.quant_conv.conv))

    def error(pixels: Tensor, generator: torch.Generator) -> Tensor:
        # the whole batch at once; `encode` and `decode` would process sample by sample to save memory
        posterior = DiagonalGaussian(vae.quant_conv(vae.encoder(pixels)))
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        divergence = 0.5 * (posterior.mean**2 + posterior.std**2 - 1.0 - 2.0 * posterior.std.log())
        made = vae.decoder(vae.post_quant_conv(latents))
        return weighted_error(made, pixels) + _DIVERGENCE_WEIGHT * divergence.mean()

    def frame_error(indices: Tensor, generator: torch.Generator) -> Tensor:
        numbers = torch.randint(clips.shape[2], indices.shape, generator=generator)
        return error(clips[indices, :, numbers][:, :, None], generator)

    train_tiny(vae.parameters(), FRAMES, len(clips), frame_error, seed=1)
    return train_tiny(
        vae.parameters(), CLIPS, len(clips), lambda indices, generator: error(clips[indices], generator), seed=2
    )


@torch.no_grad()
def scale_latents(vae: CausalVAEModel, clips: Tensor) -> Target:
    """Fold a factor into the autoencoder so that its latents times `LATENT_SCALE` have a standard deviation of 1.

    Returns:
        posteriors of all clips, mean and std (N, 4, T, h, w), unscaled like `Target`.
    """
    parts = [vae.encode(batch) for batch in clips.split(_ENCODED_AT_ONCE)]
    mean, std = torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts])
    factor = 1.0 / (float(mean.std()) * LATENT_SCALE)
    inner, outer = (cast(torch.nn.Conv3d, each.conv) for each in (vae.quant_conv, vae.post_quant_conv))
    assert inner.bias is not None
    half = inner.out_channels // 2
    inner.weight[:half] *= factor
    inner.bias[:half] *= factor
    inner.bias[half:] += 2.0 * torch.tensor(factor).log()  # log variances
    outer.weight /= factor
    return Target(mean * factor, std * factor)


@torch.no_grad()
def _conditions(vae: CausalVAEModel, clips: Tensor, size: ClipSize, given: tuple[int, ...]) -> Tensor:
    """Condition channels (N, 8, T, h, w) of clips with some frames given."""
    shown = torch.zeros_like(clips)
    shown[:, :, given] = clips[:, :, given]
    generator = torch.Generator().manual_seed(3)
    latents = torch.cat(
        [
            masked_latents(vae, batch, torch.randn((len(batch), *size.latent_shape), generator=generator))
            for batch in shown.split(_ENCODED_AT_ONCE)
        ]
    )
    mask = latent_mask(frame_mask(size.frames, given)[None], *size.latent_shape[-2:])
    return torch.cat([latents, mask.expand(len(clips), -1, -1, -1, -1)], dim=1)


def train_transformer(
    model: OpenSoraInpaint, targets: Target, conditions: Tensor, texts: list[Tensor], unconditional: Tensor
) -> float:
    """Train the published objective on posteriors (N, 4, T, h, w); returns the last mean loss.

    Args:
        conditions: (M, N, 8, T, h, w), one for each of M sets of given frames.
    """
    denoising = DenoisingLoss(LossSettings())

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        number = len(indices)
        dropped = torch.rand(number, generator=generator) < _TEXT_DROPOUT
        rows = [unconditional if drop else texts[index] for drop, index in zip(dropped, indices.tolist(), strict=True)]
        mean = targets.mean[indices]
        clean = LATENT_SCALE * (mean + targets.std[indices] * torch.randn(mean.shape, generator=generator))
        noise = torch.randn(mean.shape, generator=generator)
        timesteps = torch.randint(TRAIN_STEPS, (number,), generator=generator)
        given = torch.randint(len(conditions), (number,), generator=generator)
        text = stack_texts(rows, None, model)
        return denoising(model, clean, noise, timesteps, text, condition=conditions[given, indices])

    return train_tiny(model.parameters(), TRANSFORMER, len(targets.mean), loss_of, seed=4)
