"""Stable Video Diffusion's agent: its method table, without sockets; the mathematics is in other modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mora_environment.job_folder import job_folder
from mora_environment.model_folder import config_of
from mora_runtime import Agent, remote
from mora_training.clip_targets import ClipTargets
from mora_training.target_store import Target, TargetStore
from torch import Tensor

from mora_env_svd.arguments import check_chain_batch, check_requests, checked_frames, num_gradient_steps
from mora_env_svd.clip_generator import generated_clips, served_clips
from mora_env_svd.clip_size import ClipSize
from mora_env_svd.clip_text import TextEncoder
from mora_env_svd.errors import InputError, as_bad_argument
from mora_env_svd.files_state import files_state
from mora_env_svd.frame_coder import Posterior
from mora_env_svd.svd.conditioning import ClipNumbers, fit_pictures, resampled, signed
from mora_env_svd.svd.models import DTYPES, SvdModels
from mora_env_svd.svd.modulation import ModulationStart
from mora_env_svd.svd.objective import ClipObjective, NoiseDraw
from mora_env_svd.svd.options import SvdOptions
from mora_env_svd.svd.pipeline import ClipPlan, ImageToVideoPipeline, SamplingSettings


class SvdAgent(Agent):
    """Clips that begin with a picture, differentiable in z, in the picture and in the UNet.

    The model has no text: prompts are accepted and have no effect. It stores posteriors of target clips by content key.
    """

    def __init__(self, options: SvdOptions, models: SvdModels, start: ModulationStart, identity: str) -> None:
        self._options = options
        self._models = models
        self._start = start
        self._size = ClipSize(options.num_frames, options.height, options.width)
        self._numbers = clip_numbers(options)
        self._objective = ClipObjective(models.unet, models.coder, models.encoder, self._size, self._numbers)
        self._sampling = sampling_settings(options)
        shapes = dict.fromkeys(Posterior._fields, self._size.frame_latents_shape)
        store = TargetStore(shapes, job_folder("targets"), f"{identity}\0{self._size}")
        self._targets = ClipTargets(store, self._size.clip_shape, self._encoded)

    @classmethod
    def from_options(cls, options: SvdOptions, device: torch.device) -> SvdAgent:
        """Load the models in the options.

        Raises:
            ConfigError: a config has a value that is not supported.
        """
        models = SvdModels.load(options, device)
        source = options.text_source()
        text = None if source is None else TextEncoder(source, DTYPES[options.dtype], device, folder=job_folder("text"))
        start = ModulationStart(models.encoder, text, options.modulation_start, options.modulation_rows)
        identity = repr((options.model, files_state(Path(options.model) / "vae"), options.vae_dtype, device.type))
        return cls(options, models, start, identity)

    def module(self) -> torch.nn.Module:
        """The UNet; autoencoder, image encoder and text encoder never train."""
        unet: torch.nn.Module = self._models.unet
        return unet

    def model_config(self) -> dict[str, Any]:
        """The UNet's config.json, as diffusers writes it."""
        return config_of(self._models.unet)

    @remote
    def modulation_rows(self, text: str, new_token: bool = False) -> dict[str, Any]:
        """`rows` that initialise z, float32 (rows, D): see `ModulationStart`."""
        with as_bad_argument():
            return {"rows": self._start.rows(text, new_token=new_token)}

    @remote(host_arguments=("pixels",))
    def store_target(self, pixels: Tensor) -> dict[str, Any]:
        """Store the posterior of a target clip, uint8 (F, H, W, 3) of the model's size; returns its content `key`.

        A clip whose posterior is in memory or on disk is not encoded again.
        """
        return {"key": self._targets.add(pixels)}

    @remote
    def has_targets(self, keys: list[str]) -> dict[str, Any]:
        """`found`: of each key, whether its clip is stored, possibly by another process; see `store_target`."""
        return {"found": self._targets.has(keys)}

    @torch.no_grad()
    def _encoded(self, frames: Tensor) -> Target:
        return self._models.coder.posterior(signed(frames)).stored()

    @remote(differentiable=True)
    def loss(
        self, z: Tensor | None, prompt_keys: list[str], images: Tensor, target_keys: list[str], seeds: list[int]
    ) -> dict[str, Any]:
        """`loss`, scalar float32: the mean over the batch of each target's denoising loss given its first frame.

        Args:
            z: float32 (rows, D), or None.
            images: first frames (B, 3, H, W) in [-1, 1]; other sizes are resized to the clip's.
            prompt_keys: have no effect.
            target_keys, seeds: one for each image; all randomness of a sample comes from its seed.
        """
        with as_bad_argument():
            check_chain_batch("loss", prompt_keys, seeds, images)
            targets = [Posterior(**self._targets.get(key)) for key in target_keys]
            draws = [NoiseDraw.of(seed, self._size) for seed in seeds]
            return {"loss": self._objective.loss(z, images, targets, draws)}

    @remote(differentiable=True)
    def forward(
        self,
        z: Tensor | None,
        prompt_keys: list[str],
        seeds: list[int],
        images: Tensor,
        target_keys: list[str] | None = None,
    ) -> dict[str, Any]:
        """`frames` (B, F, 3, H, W) float32, about [-1, 1]: the clips of `generate` before their conversion to bytes.

        The gradient goes through the decoder, the last K model calls and both encoders of the first frames. K is the
        option `gradient_steps`.

        Args:
            z: float32 (rows, D), or None.
            prompt_keys: have no effect.
            seeds: one for each image.
            images: first frames, float (B, 3, H, W) in [-1, 1]; other sizes are resized to the clip's.
            target_keys: of target clips, one for each image; with them the `loss` of the method `loss` is returned too.
        """
        with as_bad_argument():
            pipeline = self._pipeline(None, None)
            num_steps = num_gradient_steps(self._options.gradient_steps, pipeline.num_steps)
            check_chain_batch("forward", prompt_keys, seeds, images)
            plans = self._plans(images, seeds, z)
            values: dict[str, Any] = {"frames": torch.stack([pipeline.pixels(plan, num_steps) for plan in plans])}
            if target_keys is not None:
                values |= self.loss(z, prompt_keys, images, target_keys, seeds)
            return values

    @remote
    def generate(self, z: Tensor | None, prompt_keys: list[str], seeds: list[int], images: Tensor) -> dict[str, Any]:
        """`outputs`, uint8 (B, F, H, W, 3): a clip from each first frame, made one after the other.

        Args:
            z, prompt_keys, seeds, images: as in `forward`.
        """
        with as_bad_argument():
            check_chain_batch("generate", prompt_keys, seeds, images)
            return {"outputs": generated_clips(self._pipeline(None, None), self._plans(images, seeds, z))}

    def _plans(self, images: Tensor, seeds: list[int], z: Tensor | None) -> list[ClipPlan]:
        """Of each sample of a chain."""
        pictures = fit_pictures(images, self._size).split(1)
        return [
            ClipPlan(picture, original, seed, z)
            for picture, original, seed in zip(pictures, images.split(1), seeds, strict=True)
        ]

    @remote
    def initial_noise(self, seed: int) -> dict[str, Any]:
        """`noise`, float32 (1, F, 4, h, w): the initial noise of a clip with this seed."""
        return {"noise": self._pipeline(None, None).initial_noise(seed)}

    @remote
    def describe(self) -> dict[str, Any]:
        """Defaults for requests: number of frames, size in pixels, steps, guidance of the last frame."""
        size, sampling = self._size, self._sampling
        return {
            "model": self._options.model,
            "height": size.height,
            "width": size.width,
            "num_frames": size.frames,
            "size_multiple": 8,
            "largest_side": max(size.height, size.width),
            "num_inference_steps": sampling.num_inference_steps,
            "least_num_inference_steps": 1,
            "guidance_scale": sampling.max_guidance_scale,
        }

    @remote
    def image_to_video(
        self,
        prompts: list[str],
        seeds: list[int],
        images: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        z: Tensor | None = None,
    ) -> dict[str, Any]:
        """Capability: `outputs` uint8 (B, F, H, W, 3), a clip from each picture, uint8 (B, H, W, 3) of any size.

        The same seed, picture and settings give the same bytes in any batch. Prompts have no effect; `guidance_scale`
        is that of the last frame. Rows of cancelled samples are zero.
        """
        with as_bad_argument():
            pictures = checked_frames(images, 4, "images")
            sampling = (num_inference_steps, guidance_scale)
            return {"outputs": self._clips(prompts, seeds, pictures, sampling, z)}

    @remote
    def extend_video(
        self,
        prompts: list[str],
        seeds: list[int],
        videos: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        z: Tensor | None = None,
    ) -> dict[str, Any]:
        """Capability: `outputs` uint8 (B, F - 1, H, W, 3), what follows the last of frames uint8 (B, N, H, W, 3).

        It is the clip that begins with that frame, without the frame.
        """
        with as_bad_argument():
            clips = checked_frames(videos, 5, "videos")
            if clips.shape[1] < 1:
                raise InputError("videos: expected at least one given frame, got none")
            sampling = (num_inference_steps, guidance_scale)
            return {"outputs": self._clips(prompts, seeds, clips[:, -1], sampling, z, first=1)}

    def _clips(
        self,
        prompts: list[str],
        seeds: list[int],
        pictures: Sequence[Tensor] | Tensor,
        sampling: tuple[int | None, float | None],
        z: Tensor | None,
        *,
        first: int = 0,
    ) -> Tensor:
        """The frames of the clips from `first` on."""
        check_requests(prompts, seeds, pictures)
        plans = [
            ClipPlan(signed(resampled(picture, self._size)[None]), signed(picture[None]), seed, z)
            for picture, seed in zip(pictures, seeds, strict=True)
        ]
        return served_clips(self._pipeline(*sampling), plans, first=first)

    def _pipeline(self, num_inference_steps: int | None, guidance_scale: float | None) -> ImageToVideoPipeline:
        changes: dict[str, Any] = {"num_inference_steps": num_inference_steps, "max_guidance_scale": guidance_scale}
        settings = replace(self._sampling, **{name: value for name, value in changes.items() if value is not None})
        models = self._models
        return ImageToVideoPipeline(
            models.unet, models.coder, models.encoder, models.scheduler, self._size, self._numbers, settings
        )


def clip_numbers(options: SvdOptions) -> ClipNumbers:
    """What the options tell the model about clips."""
    return ClipNumbers(options.fps, options.motion_bucket_id, options.noise_aug_strength)


def sampling_settings(options: SvdOptions) -> SamplingSettings:
    """How the options sample."""
    return SamplingSettings(options.num_inference_steps, options.min_guidance_scale, options.max_guidance_scale)
