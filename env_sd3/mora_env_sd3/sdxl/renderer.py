"""The differentiable SDXL: denoising by the base model and perhaps a refiner, with guidance, then VAE decode.

Plain torch over diffusers' modules, without transport.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from mora_env_sd3.image_generator import GuidedText, PictureRequest
from mora_env_sd3.sdxl.size_condition import SizeCondition
from mora_env_sd3.sdxl.text_encoders import XlEmbedding
from mora_env_sd3.sdxl.xl_steps import XlSteps
from mora_env_sd3.unet.autoencoder import Autoencoder
from mora_env_sd3.unet.denoising import denoise
from mora_env_sd3.unet.noise_objective import NoiseObjective


@dataclass(frozen=True)
class XlSettings:
    """Settings of image generation."""

    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float  # <= 1: no guidance, one model call per step
    gradient_steps: int | None  # number of the base model's last steps with gradient; None = all, the refiner's too
    sizes: SizeCondition = field(default_factory=SizeCondition)


@dataclass(frozen=True)
class XlNegative:
    """The other half of guidance, which may differ between both models: zeros, or the encoded empty text."""

    base: XlEmbedding
    refiner: XlEmbedding


@dataclass(frozen=True)
class Denoiser:
    """A UNet with its scheduler, of which only the configuration is used.

    `takes_scores`: it takes an aesthetic score in place of the target size.
    """

    unet: UNet2DConditionModel
    scheduler: Any
    takes_scores: bool = False


class XlRenderer:
    """Renders images from embeddings, z and seeds; for `ImageGenerator` and `denoise` it is the model.

    Args:
        refiner: takes the last steps, with the second text encoder's rows only.
        high_noise_share: of the training timesteps, which the base model takes if there is a refiner.
        gamma: of the own loss.
    """

    def __init__(
        self,
        base: Denoiser,
        autoencoder: Autoencoder,
        refiner: Denoiser | None = None,
        *,
        high_noise_share: float = 0.8,
        gamma: float = 5.0,
    ) -> None:
        self.base = base
        self.autoencoder = autoencoder
        self._refiner = refiner
        self._high_noise_share = high_noise_share
        self._objective = NoiseObjective(base.scheduler.alphas_cumprod, gamma)

    @property
    def device(self) -> torch.device:
        found: torch.device = self.base.unet.device
        return found

    def render(
        self,
        z: torch.Tensor | None,
        texts: Sequence[GuidedText],
        seeds: Sequence[int],
        settings: XlSettings,
    ) -> torch.Tensor:
        """Images for B texts: (B, 3, H, W) float32, about [-1, 1], not clamped (a clamp would cut the gradient).

        Differentiable in z and in the base UNet. With a refiner and a number of `gradient_steps`, the refiner's
        predictions count as constants; with None the gradient goes through them.

        Args:
            z: (rows, d) float32, or None.
            seeds: of each image, which determine it whatever the rest of the batch is.
        """
        requests = [PictureRequest(text, seed) for text, seed in zip(texts, seeds, strict=True)]
        noise = self.initial_latents(seeds, settings)
        steps = self.steps(settings, noise, seeds, 1.0)
        number, end = settings.gradient_steps, steps.num_base
        if number is None:
            number = end = len(steps)
        latents = denoise(self, requests, steps.started(noise), steps, settings, z, gradient_steps=number, end=end)
        return self.decode(latents)

    def own_loss(
        self,
        z: torch.Tensor | None,
        prompts: Sequence[XlEmbedding],
        frames: torch.Tensor,
        seeds: Sequence[int],
        settings: XlSettings,
    ) -> torch.Tensor:
        """The agent's own loss on pictures (B, 3, H, W) in [-1, 1]: predicted noise, weighted by min-SNR.

        Args:
            seeds: of each sample, for the posterior of its picture, its timestep and its noise.
        """
        clean = self.encode(frames, seeds).to(self.base.unet.dtype)
        numbers, _ = settings.sizes.from_noise(settings.height, settings.width)
        condition = self._condition(self.base, [(prompt, numbers) for prompt in prompts], z)

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return _noise(self.base.unet, noisy, timesteps, condition)

        return self._objective.loss(predict, clean, seeds)

    def initial_latents(self, seeds: Sequence[int], settings: XlSettings) -> torch.Tensor:
        """Standard normal noise (B, C, h, w) in the model's dtype; sample b depends only on seeds[b]."""
        side = self.autoencoder.scale
        shape = (1, self.base.unet.config.in_channels, settings.height // side, settings.width // side)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.cat(noise).to(self.device, self.base.unet.dtype)

    def steps(self, settings: XlSettings, latents: torch.Tensor, seeds: Sequence[int], strength: float) -> XlSteps:
        """The steps of both models in sequence: the last ones at a strength below 1."""
        refiner = None if self._refiner is None else self._refiner.scheduler
        return XlSteps.of(
            self.base.scheduler, refiner, settings.num_inference_steps, seeds, strength, self._high_noise_share
        )

    def predict(
        self,
        requests: Sequence[PictureRequest[GuidedText]],
        inputs: torch.Tensor,
        steps: XlSteps,
        number: int,
        settings: XlSettings,
        z: torch.Tensor | None,
    ) -> torch.Tensor:
        """The predicted noise for a batch in one step, guidance applied."""
        is_refined = steps.part(number) == 1
        denoiser = self._refiner if is_refined and self._refiner is not None else self.base
        prompt_sizes, negative_sizes = self._sizes(denoiser, settings, over_picture=requests[0].picture is not None)
        halves = [(request.text.prompt, prompt_sizes) for request in requests]
        guided = settings.guidance_scale > 1.0
        if guided:
            negatives = [request.text.negative for request in requests]
            own = [negative.refiner if is_refined else negative.base for negative in negatives]
            halves = [(embedding, negative_sizes) for embedding in own] + halves
            inputs = torch.cat([inputs, inputs])
        noise = _noise(denoiser.unet, inputs, steps.timestep(number), self._condition(denoiser, halves, z))
        if not guided:
            return noise
        unconditional, conditional = noise.chunk(2)
        return unconditional + settings.guidance_scale * (conditional - unconditional)

    def _sizes(
        self, denoiser: Denoiser, settings: XlSettings, *, over_picture: bool
    ) -> tuple[list[float], list[float]]:
        if denoiser is not self.base or over_picture:
            return settings.sizes.over_picture(settings.height, settings.width, scores=denoiser.takes_scores)
        return settings.sizes.from_noise(settings.height, settings.width)

    def _condition(
        self, denoiser: Denoiser, texts: Sequence[tuple[XlEmbedding, list[float]]], z: torch.Tensor | None
    ) -> dict[str, Any]:
        """The UNet's arguments for texts and their sizes: e~ = [e ; z]; z does not change the pooled vector.

        A refiner attends to the last columns only, those of the second text encoder, also of z.
        """
        width = denoiser.unet.config.cross_attention_dim
        rows = torch.stack([embedding.rows[:, -width:] for embedding, _ in texts])
        pooled = torch.stack([embedding.pooled for embedding, _ in texts])
        sizes = torch.tensor([numbers for _, numbers in texts], dtype=rows.dtype).to(rows.device)
        if z is not None:
            rows = torch.cat([rows, z.to(rows)[:, -width:].expand(len(texts), -1, -1)], dim=1)
        return {"encoder_hidden_states": rows, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}

    def text_shape(self, text: GuidedText, settings: XlSettings) -> tuple[int, ...]:
        """The number of rows of the prompt, and of predictions in a step."""
        return text.prompt.rows.shape[0], 2 if settings.guidance_scale > 1.0 else 1

    def encode(self, pixels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to scaled latents; each seed draws one sample of the posterior."""
        return self.autoencoder.encode(pixels, seeds)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents to pictures: (B, 3, H, W) float32."""
        return self.autoencoder.decode(latents)


def _noise(
    unet: UNet2DConditionModel, inputs: torch.Tensor, timestep: torch.Tensor, condition: dict[str, Any]
) -> torch.Tensor:
    """One model call: the predicted noise."""
    predicted: torch.Tensor = unet(inputs, timestep, return_dict=False, **condition)[0]
    return predicted
