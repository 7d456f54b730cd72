"""Sampling: a clip from its given pictures, step by step, with the arithmetic of diffusers' pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mora_env_svd.clip_pipeline import BeforePiece, OnFrames, OnStep, nothing_before
from mora_env_svd.pixels import to_frames
from mora_env_svd.wan.autoencoder import LatentCoder
from mora_env_svd.wan.conditioning import Conditioner, GivenPictures
from mora_env_svd.wan.denoiser import Denoiser


@dataclass(frozen=True)
class SamplingSettings:
    num_inference_steps: int
    guidance_scale: float  # <= 1 switches guidance off


@dataclass(frozen=True)
class ClipPlan:
    """What a clip is made from.

    Args:
        text, negative: encoder rows (L, D).
        seed: of the initial noise; the steps draw nothing.
        z: modulation rows (rows, D), in both halves of guidance.
    """

    text: Tensor
    negative: Tensor
    given: GivenPictures
    seed: int
    z: Tensor | None = None


class WanPipeline:
    """Makes clips, one at a time, so that a seed gives the same clip in any batch of requests.

    Args:
        scheduler: of diffusers; it is copied for each clip, because it has a state.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditioner: Conditioner,
        coder: LatentCoder,
        scheduler: Any,
        settings: SamplingSettings,
    ) -> None:
        self._denoiser = denoiser
        self._conditioner = conditioner
        self._coder = coder
        self._scheduler = scheduler
        self._settings = settings

    @property
    def num_steps(self) -> int:
        return self._settings.num_inference_steps

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        size = self._conditioner.size
        return (size.num_frames, size.height, size.width, 3)

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
        pieces: list[Tensor] = []
        for piece in self._decoded(self._latents(plan, 0, before_piece, on_step), before_piece):
            frames = to_frames(piece.float()).cpu()
            if on_frames is not None:
                on_frames(sum(map(len, pieces)), frames)
            pieces.append(frames)
        return torch.cat(pieces)

    def pixels(self, plan: ClipPlan, gradient_steps: int) -> Tensor:
        """The clip of `sample` before its conversion to bytes: float32 (F, 3, H, W), about [-1, 1], not clamped.

        Differentiable in the given pictures, in z and in the model, through the last `gradient_steps` steps and the
        decoder.
        """
        latents = self._latents(plan, gradient_steps, nothing_before, None)
        return torch.cat(list(self._decoded(latents, nothing_before))).float()

    def _decoded(self, latents: Tensor, before_piece: BeforePiece) -> Iterator[Tensor]:
        pieces = self._coder.decoded(latents)
        for _ in range(latents.shape[2]):
            before_piece()
            yield next(pieces)

    def initial_noise(self, seed: int) -> Tensor:
        """The initial noise for this seed, float32 (1, C, f, h, w)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((1, *self._conditioner.size.latent_shape), generator=generator)

    def _latents(
        self, plan: ClipPlan, gradient_steps: int, before_piece: BeforePiece, on_step: OnStep | None
    ) -> Tensor:
        denoiser, settings = self._denoiser, self._settings
        condition = self._conditioner.condition(plan.given, before_piece)
        text, negative = (denoiser.text([rows], plan.z) for rows in (plan.text, plan.negative))
        scheduler = type(self._scheduler).from_config(self._scheduler.config)
        scheduler.set_timesteps(settings.num_inference_steps)
        scheduler.set_begin_index(0)  # else it looks for the first timestep, of which rounding can make two
        latents = self.initial_noise(plan.seed).to(denoiser.device)
        first_with_gradient = len(scheduler.timesteps) - gradient_steps
        for number, timestep in enumerate(scheduler.timesteps):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= first_with_gradient):
                current = denoiser.at(timestep)
                velocity = current.velocity(latents, timestep[None], text, condition)
                if settings.guidance_scale > 1.0:
                    without = current.velocity(latents, timestep[None], negative, condition)
                    velocity = without + settings.guidance_scale * (velocity - without)
                latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            if on_step is not None:
                on_step(number, latents)
        return denoiser.shown(latents, condition)
