"""Sampling: a picture becomes a clip, as the pipeline of diffusers makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mora_env_svd.clip_pipeline import BeforePiece, OnFrames, OnStep, nothing_before
from mora_env_svd.clip_size import ClipSize
from mora_env_svd.errors import InputError
from mora_env_svd.pixels import to_frames
from mora_env_svd.svd.conditioning import ClipNumbers, TemporalFrameCoder, with_rows
from mora_env_svd.svd.picture_encoder import PictureEncoder

MOST_STEPS = 1000


@dataclass(frozen=True)
class SamplingSettings:
    """The pipeline's defaults.

    Raises:
        InputError: the number of steps is not 1 to 1000.
    """

    num_inference_steps: int = 25
    min_guidance_scale: float = 1.0  # of the first frame
    max_guidance_scale: float = 3.0  # of the last frame

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= MOST_STEPS:
            raise InputError(f"num_inference_steps: expected 1 to {MOST_STEPS}, got {self.num_inference_steps}")

    @property
    def is_guided(self) -> bool:
        """Whether each step also calls the model without the picture."""
        return self.max_guidance_scale > 1.0


@dataclass(frozen=True)
class ClipPlan:
    """What a clip is made from.

    Args:
        picture: (1, 3, H, W) in [-1, 1], of the clip's size.
        original: the same picture, of any size, for CLIP.
        seed: for the noise on the picture and the initial noise, in this order.
        z: modulation rows (rows, D), in both halves of guidance.
    """

    picture: Tensor
    original: Tensor
    seed: int
    z: Tensor | None = None


@dataclass(frozen=True)
class _Noise:
    augmentation: Tensor  # (1, 3, H, W)
    initial: Tensor  # (1, F, 4, h, w)


class ImageToVideoPipeline:
    """Generates clips, one at a time, so that a seed gives the same clip in any batch of requests.

    Args:
        scheduler: an `EulerDiscreteScheduler`, whose config is used.
    """

    def __init__(
        self,
        model: Any,
        coder: TemporalFrameCoder,
        encoder: PictureEncoder,
        scheduler: Any,
        size: ClipSize,
        numbers: ClipNumbers,
        settings: SamplingSettings,
    ) -> None:
        self._model = model
        self._coder = coder
        self._encoder = encoder
        self._scheduler = scheduler
        self._size = size
        self._numbers = numbers
        self._settings = settings

    @property
    def num_steps(self) -> int:
        return self._settings.num_inference_steps

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        return self._size.clip_shape

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
        for piece in self._coder.pieces(latents):
            before_piece()
            frames = to_frames(self._coder.decoded(piece).float()).cpu()
            if on_frames is not None:
                on_frames(sum(map(len, pieces)), frames)
            pieces.append(frames)
        return torch.cat(pieces)

    def pixels(self, plan: ClipPlan, gradient_steps: int) -> Tensor:
        """The clip of `sample` before its conversion to bytes: float32 (F, 3, H, W), about [-1, 1], not clamped.

        Differentiable in the picture, in z and in the model, through the last `gradient_steps` model calls and the
        decoder.
        """
        latents = self._latents(plan, gradient_steps, nothing_before, None)
        return torch.cat([self._coder.decoded(piece) for piece in self._coder.pieces(latents)]).float()

    def initial_noise(self, seed: int) -> Tensor:
        """The initial noise for this seed, float32 (1, F, 4, h, w)."""
        return self._drawn(seed).initial

    def _drawn(self, seed: int) -> _Noise:
        generator = torch.Generator().manual_seed(seed)
        augmentation = torch.randn((1, 3, self._size.height, self._size.width), generator=generator)
        return _Noise(augmentation, torch.randn((1, *self._size.frame_latents_shape), generator=generator))

    def _latents(
        self, plan: ClipPlan, gradient_steps: int | None, before_piece: BeforePiece, on_step: OnStep | None
    ) -> Tensor:
        """Scaled latents (F, 4, h, w) of the clip, float32."""
        noise, device = self._drawn(plan.seed), self._coder.device
        before_piece()
        shown, rows = self._conditions(plan, noise.augmentation.to(device))
        time_ids = self._numbers.time_ids(len(rows), rows)
        scheduler = type(self._scheduler).from_config(self._scheduler.config)
        scheduler.set_timesteps(self.num_steps, device="cpu")  # the scheduler's own arithmetic is on the CPU anyway
        latents = noise.initial.to(device) * scheduler.init_noise_sigma
        first_with_gradient = 0 if gradient_steps is None else self.num_steps - gradient_steps
        for number, timestep in enumerate(scheduler.timesteps):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= first_with_gradient):
                scaled = scheduler.scale_model_input(torch.cat([latents] * len(rows)), timestep)
                inputs = torch.cat([scaled.to(rows.dtype), shown], dim=2)
                predicted = self._model(inputs, timestep, rows, added_time_ids=time_ids, return_dict=False)[0]
                predicted = self._guided(predicted.float())
            latents = scheduler.step(predicted, timestep, latents).prev_sample
            if on_step is not None:
                on_step(number, latents)
        return latents[0]

    def _conditions(self, plan: ClipPlan, augmentation: Tensor) -> tuple[Tensor, Tensor]:
        """The picture's latents (N, F, 4, h, w), and rows (N, L, D) to attend to; N is 2 with guidance.

        The half without the picture has zeros for both, and z.
        """
        embedding = self._encoder.embeddings(plan.original)
        picture = plan.picture.to(augmentation) + self._numbers.noise_aug_strength * augmentation
        latents = self._coder.modes(picture).to(embedding.dtype)
        if self._settings.is_guided:
            embedding = torch.cat([torch.zeros_like(embedding), embedding])
            latents = torch.cat([torch.zeros_like(latents), latents])
        return latents[:, None].expand(-1, self._size.frames, -1, -1, -1), with_rows(embedding, plan.z)

    def _guided(self, predicted: Tensor) -> Tensor:
        if not self._settings.is_guided:
            return predicted
        without, with_picture = predicted.chunk(2)
        scales = torch.linspace(
            self._settings.min_guidance_scale, self._settings.max_guidance_scale, self._size.frames
        ).to(predicted)[None, :, None, None, None]
        return without + scales * (with_picture - without)
