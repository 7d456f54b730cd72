"""The differentiable editor: denoising with a given picture and two guidances, then VAE decode.

Plain torch over diffusers' modules, without transport. The agent, in a chain and for requests, and the plan of its cost
use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from mora_env_sd3.image_generator import PictureRequest
from mora_env_sd3.unet.autoencoder import Autoencoder
from mora_env_sd3.unet.denoising import denoise
from mora_env_sd3.unet.sampler_steps import SamplerSteps


@dataclass(frozen=True)
class EditSettings:
    """Settings of an edit."""

    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float  # <= 1: one prediction instead of three
    image_guidance_scale: float
    gradient_steps: int  # number of last steps with gradient

    @property
    def is_guided(self) -> bool:
        """Whether the predictions without instruction and without picture are needed too."""
        return self.guidance_scale > 1.0


@dataclass(frozen=True)
class Edit:
    """All that guides one sample."""

    text: Tensor  # encoder rows (L, d) of the instruction
    negative: Tensor  # those of the negative prompt
    given: Tensor  # latents (C, h, w) of the given picture, from `PictureEditor.given`


class PictureEditor:
    """Edits pictures; for `ImageGenerator` and `denoise` it is the model.

    Args:
        unet, autoencoder, scheduler: of one model; only the scheduler's configuration is used, not its state.
    """

    def __init__(self, unet: UNet2DConditionModel, autoencoder: Autoencoder, scheduler: Any) -> None:
        self.unet = unet
        self.autoencoder = autoencoder
        self.scheduler = scheduler
        self.decode = autoencoder.decode
        self.encode = autoencoder.encode

    @property
    def device(self) -> torch.device:
        found: torch.device = self.unet.device
        return found

    def edited(
        self,
        z: Tensor | None,
        texts: Sequence[Tensor],
        negative: Tensor,
        pictures: Tensor,
        seeds: Sequence[int],
        settings: EditSettings,
    ) -> Tensor:
        """Edited pictures, differentiable in z, in the given pictures and in the UNet through the last K steps.

        Args:
            z: (rows, d) float32, or None.
            texts: encoder rows (L, d) of B instructions; negative: those of the negative prompt.
            pictures: (B, 3, height, width) in [-1, 1].
            seeds: of each picture, for its initial noise and the noise of the steps.

        Returns:
            (B, 3, height, width) float32, about [-1, 1], not clamped (a clamp would cut the gradient).
        """
        rows = zip(texts, self.given(pictures), seeds, strict=True)
        requests = [PictureRequest(Edit(text, negative, given), seed) for text, given, seed in rows]
        noise = self.initial_latents(seeds, settings)
        steps = self.steps(settings, noise, seeds, 1.0)
        number = settings.gradient_steps
        return self.decode(denoise(self, requests, steps.started(noise), steps, settings, z, gradient_steps=number))

    def given(self, pictures: Tensor) -> Tensor:
        """Latents of given pictures as the UNet takes them: the posterior's mode, unscaled, as it was trained."""
        return self.autoencoder.mode(pictures).to(self.unet.dtype)

    def initial_latents(self, seeds: Sequence[int], settings: EditSettings) -> Tensor:
        """Standard normal latents (B, C, H/8, W/8) in the model's dtype; sample b depends only on seeds[b]."""
        shape = self.latent_shape(settings)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(noise).to(self.device, self.unet.dtype)

    def latent_shape(self, settings: EditSettings) -> tuple[int, int, int]:
        """(C, H/8, W/8) of one picture."""
        scale = self.autoencoder.scale
        return self.unet.config.out_channels, settings.height // scale, settings.width // scale

    def steps(self, settings: EditSettings, latents: Tensor, seeds: Sequence[int], strength: float) -> SamplerSteps:
        """All steps of a batch; an edit starts from noise, so it has no strength."""
        return SamplerSteps(self.scheduler, settings.num_inference_steps, seeds)

    def text_shape(self, text: Edit, settings: EditSettings) -> tuple[int, ...]:
        """The number of rows of the instruction, and of predictions in a step."""
        return text.text.shape[0], 3 if settings.is_guided else 1

    def predict(
        self,
        requests: Sequence[PictureRequest[Edit]],
        inputs: Tensor,
        steps: SamplerSteps,
        number: int,
        settings: EditSettings,
        z: Tensor | None,
    ) -> Tensor:
        """The predicted noise of a batch in one step, guidance applied.

        Guidance takes three predictions: with instruction and picture, with the picture alone, with neither. The last
        two have the negative prompt instead of the instruction, the last one zeros instead of the picture.
        """
        edits, timestep = [request.text for request in requests], steps.timesteps[number]
        given, texts = torch.stack([edit.given for edit in edits]), [edit.text for edit in edits]
        if not settings.is_guided:
            return self.noise(inputs, given, timestep, self.condition(texts, z))
        negatives = [edit.negative for edit in edits]
        pictures = torch.cat([given, given, torch.zeros_like(given)])
        text = self.condition([*texts, *negatives, *negatives], z)
        both, by_picture, neither = self.noise(torch.cat([inputs] * 3), pictures, timestep, text).chunk(3)
        guided: Tensor = neither + settings.guidance_scale * (both - by_picture)
        return guided + settings.image_guidance_scale * (by_picture - neither)

    def condition(self, texts: Sequence[Tensor], z: Tensor | None) -> Tensor:
        """Rows of every text followed by z: (N, L + rows, d) in the model's dtype."""
        rows = torch.stack(list(texts)).to(self.device, self.unet.dtype)
        return rows if z is None else torch.cat([rows, z.to(rows).expand(len(rows), -1, -1)], dim=1)

    def noise(self, inputs: Tensor, given: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        """One call of the UNet: noisy latents, with the given picture's as further channels, to predicted noise."""
        channels = torch.cat([inputs, given], dim=1)
        predicted: Tensor = self.unet(channels, timestep, encoder_hidden_states=text, return_dict=False)[0]
        return predicted
