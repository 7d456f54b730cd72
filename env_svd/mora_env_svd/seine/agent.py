"""SEINE's agent: its method table, without sockets; the mathematics is in `objective` and `pipeline`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mora_environment.job_folder import job_folder
from mora_runtime import Agent, remote
from mora_runtime.errors import BadArgument
from mora_training.clip_targets import ClipTargets
from mora_training.target_store import Target, TargetStore
from torch import Tensor

from mora_env_svd.arguments import check_chain_batch, check_requests, checked_frames, num_gradient_steps
from mora_env_svd.clip_generator import generated_clips, served_clips
from mora_env_svd.clip_size import ClipSize
from mora_env_svd.clip_text import TextEncoder
from mora_env_svd.errors import as_bad_argument
from mora_env_svd.files_state import files_state
from mora_env_svd.frame_coder import Posterior
from mora_env_svd.requested_texts import RequestedTexts
from mora_env_svd.seine.conditioning import MaskedFrameCoder, fit_pictures
from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.objective import TransitionObjective
from mora_env_svd.seine.options import SeineOptions
from mora_env_svd.seine.pipeline import ClipPlan, GivenFramesPipeline, SamplingSettings, pictures_of
from mora_env_svd.seine.weights.unet_folder import unet_folder
from mora_env_svd.seine.weights.weights_folder import load_unet

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_FIRST = (0,)  # the given frame of a clip in a chain


class SeineAgent(Agent):
    """Clips around given frames, differentiable in z, in the first frame and in the UNet.

    It stores, by content key, encoder rows of prompts and posteriors of target clips.
    """

    def __init__(
        self,
        options: SeineOptions,
        model: SeineUNet,
        coder: MaskedFrameCoder,
        encoder: TextEncoder,
        targets: TargetStore,
    ) -> None:
        self._options = options
        self._model = model
        self._coder = coder
        self._encoder = encoder
        self._size = _clip_size(options)
        self._targets = ClipTargets(targets, self._size.clip_shape, self._encoded)
        self._objective = TransitionObjective(model, coder, self._size, options.training_masks)
        self._sampling = SamplingSettings(options.sample_method, options.num_inference_steps, options.guidance_scale)
        self._texts = RequestedTexts(encoder, options.negative_prompt)

    @classmethod
    def from_options(cls, options: SeineOptions, device: torch.device) -> SeineAgent:
        """Load the models in the options. The text encoder is loaded when a prompt is not cached.

        Raises:
            VideoError: a folder is absent, or weights and config do not fit.
        """
        from diffusers import AutoencoderKL

        dtype = DTYPES[options.dtype]
        model = load_unet(unet_folder(options.model), dtype=dtype, device=device)
        model.gradient_checkpointing = options.gradient_checkpointing
        # only safetensors, because other formats can contain a program
        vae = AutoencoderKL.from_pretrained(
            options.base, subfolder="vae", dtype=DTYPES[options.vae_dtype], use_safetensors=True
        )
        vae = vae.to(device).eval().requires_grad_(False)
        coder = MaskedFrameCoder(vae, options.decoded_at_once, recomputes=options.gradient_checkpointing)
        encoder = TextEncoder(
            options.base, dtype, device, addition=options.additional_prompt, folder=job_folder("text")
        )
        identity = repr((options.base, files_state(Path(options.base) / "vae"), options.vae_dtype, device.type))
        return cls(options, model, coder, encoder, _target_store(_clip_size(options), identity))

    def module(self) -> torch.nn.Module:
        """The UNet; autoencoder and text encoder never train."""
        return self._model

    def model_config(self) -> dict[str, Any]:
        """The UNet's config.json."""
        return self._model.config_json()

    @remote
    def encode(self, prompts: list[str]) -> dict[str, Any]:
        """`keys` of the prompts' encoder rows, which stay here."""
        with as_bad_argument():
            self._texts.negative()  # computed while the encoder is loaded anyway
            return {"keys": [self._encoder.encode(prompt) for prompt in prompts]}

    @remote
    def modulation_rows(self, text: str, new_token: bool = False) -> dict[str, Any]:
        """`rows` that initialise z, float32 (content tokens, D): encoder rows of `text`, without begin and end.

        Args:
            new_token: one token whose input embedding is the vocabulary's mean, instead of `text`.
        """
        with as_bad_argument():
            return {"rows": self._encoder.new_token_row() if new_token else self._encoder.content_rows(text)}

    @remote
    def unload_text_encoder(self) -> dict[str, Any]:
        """Free the text encoder; a prompt that is not cached loads it again. `unloaded` says whether it was loaded."""
        self._texts.negative()
        return {"unloaded": self._encoder.unload()}

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
        return self._coder.posterior(pictures_of(frames, self._size)).stored()

    @remote(differentiable=True)
    def loss(
        self, z: Tensor | None, prompt_keys: list[str], images: Tensor, target_keys: list[str], seeds: list[int]
    ) -> dict[str, Any]:
        """`loss`, scalar float32: the mean over the batch of each target's denoising loss given its first frame.

        Args:
            z: float32 (rows, D), or None.
            images: first frames (B, 3, H, W) in [-1, 1]; other sizes are resized to the clip's.
            prompt_keys, target_keys, seeds: one for each image; all randomness of a sample comes from its seed.
        """
        with as_bad_argument():
            texts = [self._encoder.rows(key) for key in prompt_keys]
            targets = [self._target(key) for key in target_keys]
            return {"loss": self._objective.loss(z, texts, images, targets, seeds)}

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

        The gradient goes through the decoder, the last K model calls and the encoder of the first frames. K is the
        option `gradient_steps`.

        Args:
            z: float32 (rows, D), or None.
            prompt_keys, seeds: one for each image.
            images: first frames, float (B, 3, H, W) in [-1, 1]; other sizes are resized to the clip's.
            target_keys: of target clips, one for each image; with them the `loss` of the method `loss` is returned too.
        """
        with as_bad_argument():
            pipeline = self._pipeline(None, None)
            num_steps = num_gradient_steps(self._options.gradient_steps, pipeline.num_steps)
            plans = self._plans("forward", prompt_keys, seeds, images, z)
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
            pipeline = self._pipeline(None, None)
            plans = self._plans("generate", prompt_keys, seeds, images, z)
            return {"outputs": generated_clips(pipeline, plans)}

    def _plans(
        self, method: str, prompt_keys: list[str], seeds: list[int], images: Tensor, z: Tensor | None
    ) -> list[ClipPlan]:
        """Of each sample of a chain: its first frame is given."""
        check_chain_batch(method, prompt_keys, seeds, images)
        pictures = fit_pictures(images, self._size).split(1)
        texts, negative = [self._encoder.rows(key) for key in prompt_keys], self._texts.negative()
        return [
            ClipPlan(text, negative, picture, _FIRST, seed, z)
            for text, picture, seed in zip(texts, pictures, seeds, strict=True)
        ]

    @remote
    def initial_noise(self, seed: int) -> dict[str, Any]:
        """`noise`, float32 (1, 4, F, h, w): the initial noise of a clip with this seed."""
        return {"noise": self._pipeline(None, None).initial_noise(seed)}

    @remote
    def describe(self) -> dict[str, Any]:
        """Defaults for requests: number of frames, size in pixels, steps, guidance."""
        size, sampling = self._size, self._sampling
        return {
            "model": self._options.model,
            "height": size.height,
            "width": size.width,
            "num_frames": size.frames,
            "size_multiple": 8,
            "largest_side": max(size.height, size.width),
            "num_inference_steps": sampling.num_inference_steps,
            "least_num_inference_steps": 2,
            "guidance_scale": sampling.guidance_scale,
            "takes_negative_prompt": True,
        }

    @remote
    def image_to_video(
        self,
        prompts: list[str],
        seeds: list[int],
        images: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: Tensor | None = None,
    ) -> dict[str, Any]:
        """Capability: `outputs` uint8 (B, F, H, W, 3), a clip from each first frame, uint8 (B, H, W, 3) of any size.

        The same prompt, seed, frame and settings give the same bytes in any batch. Rows of cancelled samples are zero.
        """
        sampling = (num_inference_steps, guidance_scale)
        with as_bad_argument():
            frames = checked_frames(images, 4, "images")[:, None]
            return {"outputs": self._clips(prompts, seeds, frames, _FIRST, sampling, negative_prompt, z)}

    @remote
    def extend_video(
        self,
        prompts: list[str],
        seeds: list[int],
        videos: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: Tensor | None = None,
    ) -> dict[str, Any]:
        """Capability: `outputs` uint8 (B, F - N, H, W, 3), frames after the given last ones, uint8 (B, N, H, W, 3)."""
        sampling = (num_inference_steps, guidance_scale)
        with as_bad_argument():
            given = checked_frames(videos, 5, "videos").shape[1]
            if not 1 <= given < self._size.frames:
                raise BadArgument(f"videos: expected 1 to {self._size.frames - 1} given frames, got {given}")
            frames = tuple(range(given))
            return {"outputs": self._clips(prompts, seeds, videos, frames, sampling, negative_prompt, z, first=given)}

    @remote
    def connect_videos(
        self,
        prompts: list[str],
        seeds: list[int],
        images: Tensor,
        images_after: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: Tensor | None = None,
    ) -> dict[str, Any]:
        """Capability: `outputs` uint8 (B, F, H, W, 3), clips from `images` to `images_after`, each uint8 (B, H, W, 3).

        The first and the last frame of a clip show the two given ones.
        """
        sampling, given = (num_inference_steps, guidance_scale), (0, self._size.frames - 1)
        with as_bad_argument():
            ends = torch.stack(
                [checked_frames(images, 4, "images"), checked_frames(images_after, 4, "images_after")], dim=1
            )
            return {"outputs": self._clips(prompts, seeds, ends, given, sampling, negative_prompt, z)}

    def _clips(
        self,
        prompts: list[str],
        seeds: list[int],
        frames: Tensor,
        given: tuple[int, ...],
        sampling: tuple[int | None, float | None],
        negative_prompt: str | None,
        z: Tensor | None,
        *,
        first: int = 0,
    ) -> Tensor:
        """The frames of the clips from `first` on."""
        check_requests(prompts, seeds, frames)
        texts, negative = self._texts.rows(prompts, negative_prompt)
        plans = [
            ClipPlan(text, negative, pictures_of(own, self._size), given, seed, z)
            for text, own, seed in zip(texts, frames, seeds, strict=True)
        ]
        return served_clips(self._pipeline(*sampling), plans, first=first)

    def _pipeline(self, num_inference_steps: int | None, guidance_scale: float | None) -> GivenFramesPipeline:
        changes: dict[str, Any] = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        settings = replace(self._sampling, **{name: value for name, value in changes.items() if value is not None})
        return GivenFramesPipeline(self._model, self._coder, self._size, settings)

    def _target(self, key: str) -> Posterior:
        return Posterior(**self._targets.get(key))


def _target_store(size: ClipSize, identity: str) -> TargetStore:
    shapes = dict.fromkeys(Posterior._fields, size.frame_latents_shape)
    return TargetStore(shapes, job_folder("targets"), f"{identity}\0{size}")


def _clip_size(options: SeineOptions) -> ClipSize:
    return ClipSize(options.num_frames, options.height, options.width)
