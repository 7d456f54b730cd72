"""Sampling around given frames: image to video, continuation and transition differ in which frames are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mora_env_opensora.conditioning import ClipSize, frame_mask, latent_mask, masked_latents, place_frames
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint
from mora_env_opensora.objective import stack_texts
from mora_env_opensora.pipelines.pixels import Allocate, OnFrames, decode_frames, decode_pixels, ordinary_memory
from mora_env_opensora.pipelines.sampler import LatentSampler, SamplingSettings


class GivenFramesPipeline:
    """Generates clips from encoder rows and the pixels of the given frames.

    Args:
        allocate: makes the tensors for the finished frames.
    """

    def __init__(
        self,
        model: OpenSoraInpaint,
        vae: CausalVAEModel,
        size: ClipSize,
        settings: SamplingSettings | None = None,
        allocate: Allocate = ordinary_memory,
    ) -> None:
        self.vae = vae
        self.size = size
        self.sampler = LatentSampler(model, settings or SamplingSettings())
        self._allocate = allocate

    @torch.no_grad()
    def sample(
        self,
        text: Tensor,
        negative: Tensor,
        images: Sequence[Tensor],
        given: Sequence[int],
        seed: int,
        *,
        z: Tensor | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
        on_frames: OnFrames | None = None,
    ) -> Tensor:
        """Fill in the frames around `images` (each (1, 3, H, W) in [-1, 1]) at indices `given`.

        Args:
            text, negative: encoder rows (L, C).
            seed: for the initial noise, the masked clip's posterior sample and the steps' noise, in this order.
            z: modulation rows (rows, C), appended to both halves of guidance.
            on_step: see `LatentSampler.run`.
            on_frames: see `decode_frames`.
        """
        latents = self._latents(text, negative, images, given, seed, z, on_step, 0)
        return decode_frames(self.vae, latents, self._allocate, on_frames)

    def pixels(
        self,
        text: Tensor,
        negative: Tensor,
        images: Sequence[Tensor],
        given: Sequence[int],
        seed: int,
        *,
        z: Tensor | None,
        gradient_steps: int,
    ) -> Tensor:
        """The clip of `sample` before its conversion to bytes: (F, 3, H, W), about [-1, 1], not clamped.

        Differentiable in the images, in z and in the model, through the last `gradient_steps` model calls and the
        decoder.
        """
        latents = self._latents(text, negative, images, given, seed, z, None, gradient_steps)
        return decode_pixels(self.vae, latents)

    def _latents(
        self,
        text: Tensor,
        negative: Tensor,
        images: Sequence[Tensor],
        given: Sequence[int],
        seed: int,
        z: Tensor | None,
        on_step: Callable[[int, Tensor], None] | None,
        gradient_steps: int,
    ) -> Tensor:
        sampler = self.sampler
        generator = torch.Generator().manual_seed(seed)
        noise, posterior_noise = (self._draw(generator) for _ in range(2))
        condition = self.condition(images, given, posterior_noise)
        texts = [negative, text] if sampler.settings.guided else [text]
        rows = stack_texts(texts, z, sampler.model)
        return sampler.run(rows, noise, generator, condition=condition, on_step=on_step, gradient_steps=gradient_steps)

    def initial_noise(self, seed: int) -> Tensor:
        """The initial noise for this seed, float32 (1, C, T, h, w)."""
        return self._draw(torch.Generator().manual_seed(seed))

    def _draw(self, generator: torch.Generator) -> Tensor:
        return torch.randn((1, *self.size.latent_shape), generator=generator)

    def condition(self, images: Sequence[Tensor], given: Sequence[int], posterior_noise: Tensor) -> Tensor:
        """The inpaint model's condition channels (1, 8, T, h, w)."""
        clip = place_frames([image.to(self.vae.device) for image in images], given, self.size.frames)
        latents = masked_latents(self.vae, clip, posterior_noise, given=given)
        mask = latent_mask(frame_mask(self.size.frames, given)[None], *self.size.latent_shape[-2:])
        return torch.cat([latents, mask.to(latents)], dim=1)
