"""A tiny InstructPix2Pix that edits first frames of moving shapes, pre-trained in a few minutes on one CPU core.

It learns from pairs: any clip's first frame as the given picture, a caption as the instruction, and the first frame of
the caption's clip as the result. The real code loads, trains and serves it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import EulerAncestralDiscreteScheduler, UNet2DConditionModel
from mora_environment.tiny_training import Phase
from torch import Tensor

from mora_env_sd3.instruct_pix2pix import published
from mora_env_sd3.instruct_pix2pix.instructions import Instructions
from mora_env_sd3.instruct_pix2pix.tiny import make_tiny
from mora_env_sd3.unet.tiny_shapes import Shapes, make_autoencoder, train_unet

UNET = Phase("editing unet", num_steps=1000, batch_size=32, learning_rate=2e-3)
_SAME_SHARE = 0.3  # of pairs whose given picture is the result itself, so that an edit may leave a picture as it is
_DROPOUT = 0.05  # of the instruction alone, of the picture alone and of both, as in the paper: trains both guidances


def make_shapes(folder: Path, shapes: Path) -> None:
    """Write the pre-trained model in diffusers' layout; `shapes` is a folder from `mora_data.shapes_corpus`."""
    torch.set_num_threads(1)
    data = Shapes.read(shapes)
    make_tiny(folder, words=data.words())
    clean = make_autoencoder(folder / "vae", data.frames)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").train()
    encoder = Instructions(str(folder), torch.float32, torch.device("cpu"))
    rows = {caption: encoder.embed(caption).rows for caption in sorted({"", *data.captions})}
    instructions, nothing = torch.stack([rows[caption] for caption in data.captions]), rows[""]

    def predict(noisy: Tensor, timesteps: Tensor, indices: Tensor, generator: torch.Generator) -> Tensor:
        given = clean.mean[given_indices(indices, len(clean.mean), generator)]
        text_dropped, picture_dropped = dropped(len(indices), generator)
        given = torch.where(picture_dropped.view(-1, 1, 1, 1), 0.0, given)
        text = torch.where(text_dropped.view(-1, 1, 1), nothing, instructions[indices])
        channels = torch.cat([noisy, given], dim=1)
        noise: Tensor = unet(channels, timesteps, encoder_hidden_states=text, return_dict=False)[0]
        return noise

    schedule = EulerAncestralDiscreteScheduler.from_config(published.SCHEDULER).alphas_cumprod
    train_unet(unet, UNET, schedule, clean, predict, seed=2)
    unet.save_pretrained(folder / "unet")


def given_indices(indices: Tensor, num_clips: int, generator: torch.Generator) -> Tensor:
    """The clips whose first frames are given for these results: any clips, sometimes the same ones."""
    others = torch.randint(num_clips, indices.shape, generator=generator)
    is_same = torch.rand(indices.shape, generator=generator) < _SAME_SHARE
    return torch.where(is_same, indices, others)


def dropped(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of each sample, whether its instruction and whether its given picture is dropped."""
    draw = torch.rand(size, generator=generator)
    return draw < 2 * _DROPOUT, (draw >= _DROPOUT) & (draw < 3 * _DROPOUT)
