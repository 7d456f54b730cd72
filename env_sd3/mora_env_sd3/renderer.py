"""The differentiable image agent: denoising with guidance, then VAE decode, gradient through the last K steps.

Plain torch over diffusers' modules, without transport. The agent in its server and the single-process reference of
`mora bench parity` both use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from mora_env_sd3.image_generator import GuidedText, PictureRequest
from mora_env_sd3.steps import skipped_steps
from mora_env_sd3.text_encoders import TextEmbedding


@dataclass(frozen=True)
class RenderSettings:
    """Settings of image generation."""

    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float  # <= 1: no guidance, one model call per step
    gradient_steps: int  # number of last steps with gradient
    position: str = "after"


class FeatureMap(torch.nn.Linear):
    """The reading "feature axis" of the paper: a learned map of [e ; z] on the feature axis, which starts near e.

    The weight on z starts small instead of zero, because with zero neither z nor the map would ever get a gradient.
    """

    def __init__(self, width: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(2 * width, width, device=device, dtype=dtype)
        with torch.no_grad():
            self.weight.zero_()
            self.weight[:, :width].fill_diagonal_(1.0)
            self.weight[:, width:].fill_diagonal_(1e-2)
            self.bias.zero_()


class FlowSteps:
    """The denoising steps of a batch with one scheduler for all samples, because a step draws no random numbers."""

    def __init__(self, scheduler: FlowMatchEulerDiscreteScheduler, timesteps: torch.Tensor) -> None:
        self._scheduler = scheduler
        self.timesteps = timesteps

    def __len__(self) -> int:
        return len(self.timesteps)

    def part(self, number: int) -> int:
        """There is one model."""
        return 0

    def started(self, noise: torch.Tensor) -> torch.Tensor:
        """The noise, which this model takes as it is."""
        return noise

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, samples: Sequence[int]) -> torch.Tensor:
        """Clean latents and noise, mixed as the first step expects."""
        mixed: torch.Tensor = self._scheduler.scale_noise(clean, self.timesteps[:1], noise)
        return mixed

    def scaled(self, number: int, latents: torch.Tensor, samples: Sequence[int]) -> torch.Tensor:
        """The latents, which this model takes as they are."""
        return latents

    def step(
        self, number: int, prediction: torch.Tensor, latents: torch.Tensor, samples: Sequence[int]
    ) -> torch.Tensor:
        """Latents after step `number`."""
        after: torch.Tensor = self._scheduler.step(prediction, self.timesteps[number], latents, return_dict=False)[0]
        return after


class Renderer:
    """Renders images from embeddings, z_1 and seeds; for `ImageGenerator` it is the model.

    Args:
        transformer, vae, scheduler: of one SD3 model; only the configuration of the scheduler is used, not its state.
    """

    def __init__(
        self, transformer: SD3Transformer2DModel, vae: AutoencoderKL, scheduler: FlowMatchEulerDiscreteScheduler
    ) -> None:
        self.transformer = transformer
        self.vae = vae
        self._scheduler_config = scheduler.config
        self._vae_scale = 2 ** (len(vae.config.block_out_channels) - 1)

    @property
    def device(self) -> torch.device:
        found: torch.device = self.transformer.device
        return found

    def render(
        self,
        z: torch.Tensor | None,
        prompts: Sequence[TextEmbedding],
        negative: TextEmbedding | None,
        seeds: Sequence[int],
        settings: RenderSettings,
    ) -> torch.Tensor:
        """Images for B prompts.

        Args:
            z: (rows, d) float32, or None.
            prompts: B embeddings; negative: the other guidance half, required if guidance_scale > 1.
            seeds: for the initial noise of each image, which does not depend on the rest of the batch.

        Returns:
            (B, 3, H, W) float32, about [-1, 1], not clamped (a clamp would cut the gradient).
        """
        condition = self.condition(z, prompts, negative, settings)
        latents = self.initial_latents(seeds, settings)
        scheduler, timesteps = self.schedule(settings, latents)
        return self.decode(self.denoise(latents, scheduler, timesteps, condition, settings))

    def denoise(
        self,
        latents: torch.Tensor,
        scheduler: FlowMatchEulerDiscreteScheduler,
        timesteps: torch.Tensor,
        condition: tuple[torch.Tensor, torch.Tensor],
        settings: RenderSettings,
    ) -> torch.Tensor:
        """Run the denoising steps at `timesteps`, the last `gradient_steps` of them with gradient.

        In an earlier step the model's prediction counts as a constant, so only the latents pass a gradient on.

        Args:
            condition: joint and pooled, from `condition`.
        """
        joint, pooled = condition
        first_with_gradient = len(timesteps) - settings.gradient_steps
        for index, timestep in enumerate(timesteps):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= first_with_gradient):
                velocity = self.velocity(latents, timestep, joint, pooled, settings.guidance_scale)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return latents

    def condition(
        self,
        z: torch.Tensor | None,
        prompts: Sequence[TextEmbedding],
        negative: TextEmbedding | None,
        settings: RenderSettings,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """e~ = [e ; z] for the batch; with guidance the negative half comes first and also has z.

        Returns:
            joint (B or 2B, L + rows, d) and pooled (B or 2B, p), in the model's dtype; z does not change pooled.
        """
        halves = [prompts]
        if settings.guidance_scale > 1.0:
            if negative is None:
                raise ValueError("guidance needs the embedding of the negative prompt, but got none")
            halves.insert(0, [negative] * len(prompts))
        joint = torch.stack([embedding.joint for half in halves for embedding in half])
        pooled = torch.stack([embedding.pooled for half in halves for embedding in half])
        if z is None:
            return joint, pooled
        return self._concatenate(joint, z.to(joint.device, joint.dtype), settings.position), pooled

    def _concatenate(self, joint: torch.Tensor, z: torch.Tensor, position: str) -> torch.Tensor:
        if position == "feature":
            row = z.mean(dim=0).expand(joint.shape[0], joint.shape[1], -1)
            mapped: torch.Tensor = self.transformer.mora_feature_map(torch.cat([joint, row], dim=-1))
            return mapped
        rows = z.unsqueeze(0).expand(joint.shape[0], -1, -1)
        return torch.cat([rows, joint] if position == "before" else [joint, rows], dim=1)

    def initial_latents(self, seeds: Sequence[int], settings: RenderSettings) -> torch.Tensor:
        """Standard normal latents (B, C, H/8, W/8) in the model's dtype; sample b depends only on seeds[b]."""
        channels = self.transformer.config.in_channels
        shape = (1, channels, settings.height // self._vae_scale, settings.width // self._vae_scale)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.cat(noise).to(self.transformer.device, self.transformer.dtype)

    def schedule(
        self, settings: RenderSettings, latents: torch.Tensor, strength: float = 1.0
    ) -> tuple[FlowMatchEulerDiscreteScheduler, torch.Tensor]:
        """A fresh scheduler for latents of this size, and the timesteps to run: the last ones at a lower strength."""
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self._scheduler_config)
        extra = {}
        if scheduler.config.use_dynamic_shifting:
            patch = self.transformer.config.patch_size
            num_tokens = (latents.shape[-2] // patch) * (latents.shape[-1] // patch)
            extra["mu"] = calculate_shift(
                num_tokens,
                scheduler.config.base_image_seq_len,
                scheduler.config.max_image_seq_len,
                scheduler.config.base_shift,
                scheduler.config.max_shift,
            )
        scheduler.set_timesteps(settings.num_inference_steps, device=latents.device, **extra)
        num_skipped = skipped_steps(settings.num_inference_steps, strength)
        scheduler.set_begin_index(num_skipped)
        return scheduler, scheduler.timesteps[num_skipped:]

    def steps(
        self, settings: RenderSettings, latents: torch.Tensor, seeds: Sequence[int], strength: float
    ) -> FlowSteps:
        """The steps of a batch of requests."""
        return FlowSteps(*self.schedule(settings, latents, strength))

    def predict(
        self,
        requests: Sequence[PictureRequest[GuidedText]],
        inputs: torch.Tensor,
        steps: FlowSteps,
        number: int,
        settings: RenderSettings,
        z: torch.Tensor | None,
    ) -> torch.Tensor:
        """The prediction for a batch of requests in one step."""
        prompts = [request.text.prompt for request in requests]
        joint, pooled = self.condition(z, prompts, requests[0].text.negative, settings)
        return self.velocity(inputs, steps.timesteps[number], joint, pooled, settings.guidance_scale)

    def text_shape(self, text: GuidedText, settings: RenderSettings) -> tuple[int, ...]:
        """The number of rows of the prompt, and of predictions in a step."""
        return text.prompt.joint.shape[0], 2 if settings.guidance_scale > 1.0 else 1

    def velocity(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        joint: torch.Tensor,
        pooled: torch.Tensor,
        guidance_scale: float,
    ) -> torch.Tensor:
        """The model's prediction for a batch at one timestep, guidance applied."""
        guided = guidance_scale > 1.0
        inputs = torch.cat([latents, latents]) if guided else latents
        velocity: torch.Tensor = self.transformer(
            hidden_states=inputs,
            timestep=timestep.expand(inputs.shape[0]),
            encoder_hidden_states=joint,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        if not guided:
            return velocity
        unconditional, conditional = velocity.chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to images: (B, 3, H, W) float32."""
        config = self.vae.config
        unscaled = latents / config.scaling_factor + config.shift_factor
        images: torch.Tensor = self.vae.decode(unscaled, return_dict=False)[0]
        # dense in C order, as it arrives in another process, because later layers may choose algorithms by strides
        return images.float().contiguous()

    def encode(self, pixels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Images (B, 3, H, W) in [-1, 1] to scaled latents; each seed draws one posterior sample.

        Differentiable in the images.
        """
        posterior = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        noise = [torch.randn(posterior.mean[:1].shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        sample = posterior.mean + posterior.std * torch.cat(noise).to(posterior.mean)
        return (sample - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def own_loss(
        self,
        z: torch.Tensor | None,
        prompts: Sequence[TextEmbedding],
        frames: torch.Tensor,
        seeds: Sequence[int],
        settings: RenderSettings,
    ) -> torch.Tensor:
        """The image agent's own loss: rectified-flow matching on the first frames of the targets (weight 0 by default).

        Timesteps are logit-normal(0, 1) as in SD3; target velocity = noise - x0; mean over the batch, float32.
        """
        unguided = RenderSettings(settings.height, settings.width, 1, 1.0, 1, settings.position)
        joint, pooled = self.condition(z, prompts, None, unguided)
        clean = self.encode(frames, seeds).to(self.transformer.dtype)
        generators = [torch.Generator().manual_seed(seed ^ 0x5D3) for seed in seeds]
        sigma = torch.cat([torch.sigmoid(torch.randn(1, generator=g)) for g in generators]).to(clean.device)
        noise = torch.cat([torch.randn(clean[:1].shape, generator=g) for g in generators]).to(clean)
        weight = sigma.view(-1, 1, 1, 1).to(clean.dtype)
        noisy = (1.0 - weight) * clean + weight * noise
        velocity = self.transformer(
            hidden_states=noisy,
            timestep=sigma * self._scheduler_config.num_train_timesteps,
            encoder_hidden_states=joint,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return torch.nn.functional.mse_loss(velocity.float(), (noise - clean).float())
