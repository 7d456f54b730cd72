"""A tiny SDXL that draws first frames of moving shapes, pre-trained in a few minutes on one CPU core.

The real code loads, trains and serves it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from mora_environment.tiny_training import Phase

from mora_env_sd3.sdxl import published
from mora_env_sd3.sdxl.size_condition import SizeCondition
from mora_env_sd3.sdxl.text_encoders import XlTextEncoders
from mora_env_sd3.sdxl.tiny import make_tiny
from mora_env_sd3.unet.tiny_shapes import Shapes, make_autoencoder, train_unet

UNET = Phase("sdxl unet", num_steps=1000, batch_size=32, learning_rate=2e-3)
_NUM_CHANNELS = 16  # of the latents, whose side is an eighth of the picture's
_TEXT_DROPOUT = 0.1  # trains the unconditional half of guidance


def make_shapes(folder: Path, shapes: Path) -> None:
    """Write the pre-trained model in diffusers' layout; `shapes` is a folder from `mora_data.shapes_corpus`."""
    torch.set_num_threads(1)
    data = Shapes.read(shapes)
    height, width = data.frames.shape[-2:]
    make_tiny(
        folder,
        words=data.words() | {"mod"},
        num_channels=_NUM_CHANNELS,
        timestep_spacing="trailing",  # few steps then begin at the highest noise, as pure noise needs
        sample_size=height // 8,
    )
    clean = make_autoencoder(folder / "vae", data.frames)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").train()
    encoders = XlTextEncoders(str(folder), torch.float32, torch.device("cpu"))
    texts = {caption: encoders.embed(caption) for caption in sorted(set(data.captions))}
    rows = torch.stack([texts[caption].rows for caption in data.captions])
    pooled = torch.stack([texts[caption].pooled for caption in data.captions])
    sizes = torch.tensor([SizeCondition().from_noise(height, width)[0]], dtype=torch.float32)

    def predict(
        noisy: torch.Tensor, timesteps: torch.Tensor, indices: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        kept = torch.rand(len(indices), generator=generator) >= _TEXT_DROPOUT  # without a text, all its values are 0
        noise: torch.Tensor = unet(
            noisy,
            timesteps,
            encoder_hidden_states=rows[indices] * kept.view(-1, 1, 1),
            added_cond_kwargs={
                "text_embeds": pooled[indices] * kept.view(-1, 1),
                "time_ids": sizes.expand(len(indices), -1),
            },
            return_dict=False,
        )[0]
        return noise

    schedule = EulerDiscreteScheduler.from_config(published.SCHEDULER).alphas_cumprod
    train_unet(unet, UNET, schedule, clean, predict, seed=2)
    unet.save_pretrained(folder / "unet")
