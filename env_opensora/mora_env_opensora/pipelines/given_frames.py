"""Sampling around given frames: image to video, continuation (extend) and transition (connect)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mora_env_opensora.conditioning import ClipSize, frame_mask, latent_mask, masked_latents, place_frames
from mora_env_opensora.models import CausalVAEModel, InputError, OpenSoraInpaint
from mora_env_opensora.objective import stack_texts
from mora_env_opensora.pipelines.pixels import Allocate, decode_frames, frames_to_pixels, ordinary_memory
from mora_env_opensora.pipelines.sampler import LatentSampler, SamplingSettings
from mora_env_opensora.pipelines.text_to_video import encode_prompts
from mora_env_opensora.text.encoder import TextEncoder
from mora_env_opensora.text.prompts import NEGATIVE_PROMPT


class GivenFramesPipeline:
    """`sample` works on encoder rows and pixels; `animate`, `extend` and `connect` on rows and uint8 frames.

    Args:
        allocate: makes the tensors that the finished frames are written into.
    """

    def __init__(
        self,
        model: OpenSoraInpaint,
        vae: CausalVAEModel,
        size: ClipSize,
        settings: SamplingSettings | None = None,
        encoder: TextEncoder | None = None,
        allocate: Allocate = ordinary_memory,
    ) -> None:
        self.vae = vae
        self.size = size
        self.sampler = LatentSampler(model, settings or SamplingSettings())
        self.encoder = encoder
        self._allocate = allocate

    def __call__(
        self,
        prompts: Sequence[str],
        images: Sequence[Tensor],
        seeds: Sequence[int],
        *,
        negative_prompt: str = NEGATIVE_PROMPT,
    ) -> list[Tensor]:
        """Image to video: one clip, uint8 (F, H, W, 3), a prompt, first frame uint8 (H, W, 3) and seed."""
        if len(images) != len(prompts):
            raise InputError(f"expected one image a prompt, got {len(images)} images and {len(prompts)} prompts")
        rows, negative = encode_prompts(self.encoder, prompts, seeds, negative_prompt)
        return [
            self.animate(text, negative, image[None], seed)
            for text, image, seed in zip(rows, images, seeds, strict=True)
        ]

    def animate(self, text: Tensor, negative: Tensor, image: Tensor, seed: int, *, z: Tensor | None = None) -> Tensor:
        """Continue from one image, uint8 (1, H, W, 3). Returns the clip, uint8 (F, H, W, 3)."""
        pixels = frames_to_pixels(image, self.size.height, self.size.width)
        return self.sample(text, negative, [pixels], [0], seed, z=z)

    def extend(
        self,
        text: Tensor,
        negative: Tensor,
        video: Tensor,
        seed: int,
        *,
        given_frames: int = 1,
        z: Tensor | None = None,
    ) -> Tensor:
        """Continue a video, uint8 (N, H, W, 3), from its last `given_frames`.

        Returns:
            uint8 (N + F - given_frames, height, width, 3): the video at the model's size, then the new frames.
        """
        if not 1 <= given_frames <= min(video.shape[0], self.size.frames - 1):
            raise InputError(
                f"given_frames: expected 1 to {min(video.shape[0], self.size.frames - 1)} for a video of "
                f"{video.shape[0]} frames and clips of {self.size.frames}, got {given_frames}"
            )
        fitted = frames_to_pixels(video, self.size.height, self.size.width)
        given = [frame[None] for frame in fitted[-given_frames:]]
        clip = self.sample(text, negative, given, range(given_frames), seed, z=z)
        kept = video if tuple(video.shape[1:3]) == (self.size.height, self.size.width) else _to_uint8(fitted)
        num_frames = kept.shape[0] + clip.shape[0] - given_frames
        frames = self._allocate((num_frames, *clip.shape[1:]), torch.uint8)
        return torch.cat([kept.cpu(), clip[given_frames:]], out=frames)

    def connect(
        self,
        text: Tensor,
        negative: Tensor,
        first: Tensor,
        second: Tensor,
        seed: int,
        *,
        z: Tensor | None = None,
    ) -> Tensor:
        """A transition, uint8 (F, H, W, 3), from the last frame of one video (N, H, W, 3) to the first of another."""
        height, width = self.size.height, self.size.width
        ends = [frames_to_pixels(first[-1:], height, width), frames_to_pixels(second[:1], height, width)]
        return self.sample(text, negative, ends, [0, -1], seed, z=z)

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
    ) -> Tensor:
        """Fill in the frames around `images` (each (1, 3, H, W) in [-1, 1]) at indices `given`.

        Args:
            text, negative: encoder rows (L, C).
            seed: of the initial noise, the masked clip's posterior sample and the steps' noise, in this order.
            z: modulation rows (rows, C), appended to both halves of guidance.
            on_step: see `LatentSampler.run`.
        """
        sampler = self.sampler
        generator = torch.Generator().manual_seed(seed)
        noise, posterior_noise = (self._draw(generator) for _ in range(2))
        condition = self.condition(images, given, posterior_noise)
        texts = [negative, text] if sampler.settings.guided else [text]
        rows = stack_texts(texts, z, sampler.model)
        latents = sampler.run(rows, noise, generator, condition=condition, on_step=on_step)
        return decode_frames(self.vae, latents, self._allocate)

    def initial_noise(self, seed: int) -> Tensor:
        """What a clip of this seed starts from, float32 (1, C, T, h, w)."""
        return self._draw(torch.Generator().manual_seed(seed))

    def _draw(self, generator: torch.Generator) -> Tensor:
        return torch.randn((1, *self.size.latent_shape), generator=generator)

    def condition(self, images: Sequence[Tensor], given: Sequence[int], posterior_noise: Tensor) -> Tensor:
        """The inpaint model's condition channels (1, 8, T, h, w)."""
        clip = place_frames([image.to(self.vae.device) for image in images], given, self.size.frames)
        latents = masked_latents(self.vae, clip, posterior_noise)
        mask = latent_mask(frame_mask(self.size.frames, given)[None], *self.size.latent_shape[-2:])
        return torch.cat([latents, mask.to(latents)], dim=1)


def _to_uint8(pixels: Tensor) -> Tensor:
    """Rounded, unlike decoded clips: what came in as uint8 goes out as it was."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
