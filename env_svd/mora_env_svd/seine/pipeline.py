"""Sampling around given frames: image to video, continuation and transition differ in which frames are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mora_env_svd.clip_pipeline import BeforePiece, OnFrames, OnStep, nothing_before
from mora_env_svd.clip_size import ClipSize
from mora_env_svd.pixels import to_frames, unit_pixels
from mora_env_svd.seine.conditioning import MaskedFrameCoder, as_clip, frames_of, masked_posterior
from mora_env_svd.seine.diffusion import GUIDANCE_SCALE, Method, SpacedDiffusion, sample_latents
from mora_env_svd.seine.masks import mask_of, over_pictures, resized
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.objective import stack_texts


@dataclass(frozen=True)
class SamplingSettings:
    """Upstream's defaults."""

    method: Method = "ddpm"
    num_inference_steps: int = 250
    guidance_scale: float = GUIDANCE_SCALE

    @cached_property
    def process(self) -> SpacedDiffusion:
        """Raises: InputError: the number of steps is not 2 to 1000."""
        return SpacedDiffusion(self.num_inference_steps)


@dataclass(frozen=True)
class ClipPlan:
    """What a clip is made from.

    Args:
        text, negative: encoder rows (L, D).
        pictures: (N, 3, H, W) in [-1, 1], of the clip's size, for the frames `given`.
        seed: for the initial noise, the masked clip's posterior sample and the noise of the steps, in this order.
        z: modulation rows (rows, D), appended to both halves of guidance.
    """

    text: Tensor
    negative: Tensor
    pictures: Tensor
    given: tuple[int, ...]
    seed: int
    z: Tensor | None = None


class GivenFramesPipeline:
    """Generates clips, one at a time, so that a seed gives the same clip in any batch of requests.

    Raises:
        InputError: the settings have a number of steps that the process does not have.
    """

    def __init__(self, model: SeineUNet, coder: MaskedFrameCoder, size: ClipSize, settings: SamplingSettings) -> None:
        self.model = model
        self.coder = coder
        self.size = size
        self.settings = settings
        self._process = settings.process  # made now, so that wrong settings are refused before any work

    @property
    def num_steps(self) -> int:
        return self.settings.num_inference_steps

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        return self.size.clip_shape

    @torch.no_grad()
    def sample(
        self,
        plan: ClipPlan,
        *,
        before_piece: BeforePiece = nothing_before,
        on_step: OnStep | None = None,
        on_frames: OnFrames | None = None,
    ) -> Tensor:
        """The clip, uint8 (F, H, W, 3) on the CPU.

        Args:
            before_piece, on_step, on_frames: as `mora_env_svd.clip_pipeline` says.
        """
        latents = self._latents(plan, None, before_piece, on_step)
        pieces: list[Tensor] = []
        for piece in self.coder.pieces(frames_of(latents)):
            before_piece()
            frames = to_frames(self.coder.decoded(piece).float()).cpu()
            if on_frames is not None:
                on_frames(sum(map(len, pieces)), frames)
            pieces.append(frames)
        return torch.cat(pieces)

    def pixels(self, plan: ClipPlan, gradient_steps: int) -> Tensor:
        """The clip of `sample` before its conversion to bytes: float32 (F, 3, H, W), about [-1, 1], not clamped.

        Differentiable in the pictures, in z and in the model, through the last `gradient_steps` model calls and the
        decoder.
        """
        latents = self._latents(plan, gradient_steps, nothing_before, None)
        return torch.cat([self.coder.decoded(piece) for piece in self.coder.pieces(frames_of(latents))]).float()

    def initial_noise(self, seed: int) -> Tensor:
        """The initial noise for this seed, float32 (1, 4, F, h, w)."""
        return self._draw(torch.Generator().manual_seed(seed))

    def _draw(self, generator: torch.Generator) -> Tensor:
        return torch.randn((1, *self.size.latent_shape), generator=generator)

    def _latents(
        self, plan: ClipPlan, gradient_steps: int | None, before_piece: BeforePiece, on_step: OnStep | None
    ) -> Tensor:
        generator = torch.Generator().manual_seed(plan.seed)
        noise, posterior_noise = (self._draw(generator) for _ in range(2))
        posterior = masked_posterior(self.coder, self.size, plan.pictures, plan.given, before_piece)
        mask = over_pictures(mask_of(plan.given, self.size.frames), *self.size.cells)
        return sample_latents(
            self.model,
            self._process,
            noise,
            mask,
            as_clip(posterior.scaled(posterior_noise[0].transpose(0, 1))),
            stack_texts([plan.text, plan.negative], plan.z, self.model),
            guidance_scale=self.settings.guidance_scale,
            method=self.settings.method,
            generator=generator,
            gradient_steps=gradient_steps,
            on_step=on_step,
        )


def pictures_of(frames: Sequence[Tensor] | Tensor, size: ClipSize) -> Tensor:
    """uint8 frames (H, W, 3) of any size -> float32 (N, 3, H, W) in [-1, 1] of the clip's size, as upstream does."""
    return torch.stack([resized(unit_pixels(frame), size.height, size.width) * 2.0 - 1.0 for frame in frames])
