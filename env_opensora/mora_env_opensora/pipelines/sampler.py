"""The denoising loop: noise to latents of one clip, with guidance."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mora_env_opensora.models import InputError, OpenSoraT2V
from mora_env_opensora.noise_schedule import PredictionType
from mora_env_opensora.objective import TextBatch
from mora_env_opensora.pipelines.schedulers import SchedulerName, least_steps, make_scheduler


@dataclass(frozen=True)
class SamplingSettings:
    """The defaults of upstream's script. Its authors recommend PNDM for image to video."""

    scheduler: SchedulerName = "pndm"
    num_inference_steps: int = 100
    guidance_scale: float = 7.5
    prediction_type: PredictionType = "epsilon"
    # Upstream scales the given frames' latents and mask together with the noisy latents, so the Euler samplers lose
    # them (they shrink to 1/157 at the first step). False scales only the noisy latents, as in training.
    scale_condition: bool = False

    def __post_init__(self) -> None:
        least = least_steps(self.scheduler)
        if self.num_inference_steps < least:
            raise InputError(
                f"num_inference_steps: expected at least {least} with {self.scheduler}, got {self.num_inference_steps}"
            )

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1


class LatentSampler:
    """Runs one clip at a time, so that a seed gives the same clip in any batch of requests."""

    def __init__(self, model: OpenSoraT2V, settings: SamplingSettings) -> None:
        self.model = model
        self.settings = settings

    def num_model_calls(self) -> int:
        """Number of model calls for one clip; some schedulers need more calls than steps."""
        scheduler = make_scheduler(self.settings.scheduler, self.settings.prediction_type)
        scheduler.set_timesteps(self.settings.num_inference_steps)
        return len(scheduler.timesteps)

    def run(
        self,
        text: TextBatch,
        noise: Tensor,
        generator: torch.Generator,
        *,
        condition: Tensor | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
        gradient_steps: int = 0,
    ) -> Tensor:
        """Denoise `noise` to scaled latents (1, C, T, h, w), float32.

        Differentiable in the text and the condition, through the model calls of the last steps only.

        Args:
            text: with guidance two entries, negative then positive; otherwise one.
            noise: standard normal (1, C, T, h, w).
            generator: source of the step noise of ancestral samplers.
            condition: further channels (1, C', T, h, w) for the inpaint model, the same for both halves of guidance.
            on_step: called with the step's number and latents after each scheduler step.
            gradient_steps: number of last steps whose model call has a gradient.
        """
        settings, device = self.settings, self.model.device
        expected = 2 if settings.guided else 1
        if noise.shape[0] != 1 or text.rows.shape[0] != expected:
            raise InputError(
                f"sampler: expected one clip and {expected} texts at guidance {settings.guidance_scale}, "
                f"got {noise.shape[0]} clips and {text.rows.shape[0]} texts"
            )
        scheduler = make_scheduler(settings.scheduler, settings.prediction_type)
        scheduler.set_timesteps(settings.num_inference_steps)
        draws = "generator" in inspect.signature(scheduler.step).parameters
        options = {"generator": generator} if draws else {}
        latents = noise.to(device, torch.float32) * scheduler.init_noise_sigma
        first_with_gradient = len(scheduler.timesteps) - gradient_steps
        for number, timestep in enumerate(scheduler.timesteps):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= first_with_gradient):
                prediction = self._predict(scheduler, latents, timestep, text, condition)
            latents = scheduler.step(prediction, timestep, latents, **options).prev_sample
            if on_step is not None:
                on_step(number, latents)
        return latents

    def _predict(
        self, scheduler: object, latents: Tensor, timestep: Tensor, text: TextBatch, condition: Tensor | None
    ) -> Tensor:
        """float32 prediction for one clip, guidance applied."""
        settings = self.settings
        inputs = scheduler.scale_model_input(latents, timestep)  # type: ignore[attr-defined]
        if condition is not None:
            condition = condition.to(inputs)
            if settings.scale_condition:
                condition = scheduler.scale_model_input(condition, timestep)  # type: ignore[attr-defined]
            inputs = torch.cat([inputs, condition], dim=1)
        inputs = inputs.expand(text.rows.shape[0], -1, -1, -1, -1)
        prediction = self.model(inputs, timestep, text.rows, encoder_attention_mask=text.mask).float()
        if settings.guided:
            unconditional, conditional = prediction.chunk(2)
            prediction = unconditional + settings.guidance_scale * (conditional - unconditional)
        return prediction[:, : latents.shape[1]]  # any further channels are a predicted variance, which is not used
