"""Wan's agents: their method tables, without sockets; the mathematics is in `objective` and `pipeline`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mora_environment.job_folder import job_folder
from mora_environment.model_folder import config_of
from mora_runtime import Agent, remote
from mora_training.clip_targets import ClipTargets
from mora_training.target_store import TargetStore
from torch import Tensor

from mora_env_svd.arguments import check_chain_batch, checked_frames, num_gradient_steps
from mora_env_svd.clip_generator import generated_clips
from mora_env_svd.errors import InputError, as_bad_argument
from mora_env_svd.files_state import files_state
from mora_env_svd.pixels import unit_pixels
from mora_env_svd.wan.models import DTYPES, WanModels, load_models
from mora_env_svd.wan.objective import FlowObjective
from mora_env_svd.wan.options import WanOptions
from mora_env_svd.wan.pipeline import ClipPlan
from mora_env_svd.wan.requested_clips import RequestedClips
from mora_env_svd.wan.text import Umt5Text


def wan_agent(options: WanOptions, device: torch.device) -> WanModelAgent:
    """The agent for the layout of the model that the options name. Its text encoder is loaded when it is needed.

    Raises:
        VideoError: a folder is absent, or the model has a layout that this kind does not have.
    """
    models = load_models(options, device)
    dtype, length = DTYPES[options.dtype], options.max_sequence_length
    text = Umt5Text(options.model, dtype, device, length, folder=job_folder("text"))
    if models.layout.last == "always":
        return WanConnectAgent(options, models, text)
    kind = WanAgent if models.layout.trains else WanTwoStageAgent
    return kind(options, models, text)


class WanModelAgent(Agent):
    """What all agents of Wan have: the model and its description."""

    def __init__(self, options: WanOptions, models: WanModels, text: Umt5Text) -> None:
        self._options = options
        self._models = models
        self._text = text
        self._clips = RequestedClips(options, models, text)

    def module(self) -> torch.nn.Module:
        """The transformer, of two the one for high noise levels; autoencoder and encoders never train."""
        module: torch.nn.Module = self._models.denoiser.model
        return module

    def model_config(self) -> dict[str, Any]:
        """The transformer's config.json, as diffusers writes it."""
        return config_of(self._models.denoiser.model)

    @remote
    def describe(self) -> dict[str, Any]:
        """Defaults for requests: number of frames, size in pixels, steps, guidance."""
        return self._clips.described()


class WanConnectAgent(WanModelAgent):
    """A model that always needs a first and a last frame (FLF2V). It serves requests only."""

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
        sampling = (num_inference_steps, guidance_scale)
        with as_bad_argument():
            first, last = checked_frames(images, 4, "images"), checked_frames(images_after, 4, "images_after")
            if len(first) != len(last):
                raise InputError(f"images_after: expected as many as images, {len(first)}, got {len(last)}")
            given = list(zip(first, last, strict=True))
            return {"outputs": self._clips.made(prompts, seeds, given, sampling, negative_prompt, z)}


class FirstFrameAgent(WanModelAgent):
    """Clips from a first frame, for requests."""

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
            given = [[image] for image in checked_frames(images, 4, "images")]
            return {"outputs": self._clips.made(prompts, seeds, given, sampling, negative_prompt, z)}

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
        """Capability: `outputs` uint8 (B, F - 1, H, W, 3), frames after the given ones, uint8 (B, N, H, W, 3).

        A clip continues the last given frame; the model does not see the others.
        """
        sampling = (num_inference_steps, guidance_scale)
        with as_bad_argument():
            if checked_frames(videos, 5, "videos").shape[1] < 1:
                raise InputError("videos: expected at least 1 given frame, got 0")
            given = [[video[-1]] for video in videos]
            return {"outputs": self._clips.made(prompts, seeds, given, sampling, negative_prompt, z, first=1)}


class WanTwoStageAgent(FirstFrameAgent, WanConnectAgent):
    """A model of two transformers (A14B), which takes a last frame too, if there is one. It serves requests only."""


class WanAgent(FirstFrameAgent):
    """Clips from a first frame, differentiable in z, in the first frame and in the transformer.

    It stores, by content key, encoder rows of prompts and latents of target clips.
    """

    def __init__(self, options: WanOptions, models: WanModels, text: Umt5Text) -> None:
        super().__init__(options, models, text)
        self._objective = FlowObjective(models.denoiser, models.conditioner)
        size = models.conditioner.size
        vae = Path(options.model) / "vae"
        identity = repr((options.model, files_state(vae), options.vae_dtype, models.coder.device.type, size))
        store = TargetStore({"latents": size.latent_shape}, job_folder("targets"), identity)
        self._targets = ClipTargets(store, self._clips.pipeline().clip_shape, self._encoded)

    @remote
    def encode(self, prompts: list[str]) -> dict[str, Any]:
        """`keys` of the prompts' encoder rows, which stay here."""
        with as_bad_argument():
            self._clips.negative()  # computed while the encoder is loaded anyway
            return {"keys": [self._text.encode(prompt) for prompt in prompts]}

    @remote
    def modulation_rows(self, text: str, new_token: bool = False) -> dict[str, Any]:
        """`rows` that initialise z, float32 (content tokens, D): encoder rows of `text`, without its end token.

        Args:
            new_token: one token whose input embedding is the vocabulary's mean, instead of `text`.
        """
        with as_bad_argument():
            return {"rows": self._text.new_token_row() if new_token else self._text.content_rows(text)}

    @remote
    def unload_text_encoder(self) -> dict[str, Any]:
        """Free the text encoder; a prompt that is not cached loads it again. `unloaded` says whether it was loaded."""
        self._clips.negative()
        return {"unloaded": self._text.unload()}

    @remote(host_arguments=("pixels",))
    def store_target(self, pixels: Tensor) -> dict[str, Any]:
        """Store the latents of a target clip, uint8 (F, H, W, 3) of the model's size; returns its content `key`.

        A clip whose latents are in memory or on disk is not encoded again.
        """
        return {"key": self._targets.add(pixels)}

    @remote
    def has_targets(self, keys: list[str]) -> dict[str, Any]:
        """`found`: of each key, whether its clip is stored, possibly by another process; see `store_target`."""
        return {"found": self._targets.has(keys)}

    @torch.no_grad()
    def _encoded(self, frames: Tensor) -> dict[str, Tensor]:
        clip = torch.stack([unit_pixels(frame) * 2.0 - 1.0 for frame in frames], dim=1)
        return {"latents": self._models.coder.encoded(clip[None])[0].cpu().contiguous()}

    @remote(differentiable=True)
    def loss(
        self, z: Tensor | None, prompt_keys: list[str], images: Tensor, target_keys: list[str], seeds: list[int]
    ) -> dict[str, Any]:
        """`loss`, scalar float32: the mean over the batch of each target's flow-matching loss given its first frame.

        Args:
            z: float32 (rows, D), or None.
            images: first frames (B, 3, H, W) in [-1, 1]; other sizes are resized to the clip's.
            prompt_keys, target_keys, seeds: one for each image; all randomness of a sample comes from its seed.
        """
        with as_bad_argument():
            texts = [self._text.rows(key) for key in prompt_keys]
            targets = [self._targets.get(key)["latents"] for key in target_keys]
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

        The gradient goes through the decoder, the last K steps and the encoders of the first frames. K is the option
        `gradient_steps`.

        Args:
            z: float32 (rows, D), or None.
            prompt_keys, seeds: one for each image.
            images: first frames, float (B, 3, H, W) in [-1, 1]; other sizes are resized to the clip's.
            target_keys: of target clips, one for each image; with them the `loss` of the method `loss` is returned too.
        """
        with as_bad_argument():
            pipeline = self._clips.pipeline()
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
            plans = self._plans("generate", prompt_keys, seeds, images, z)
            return {"outputs": generated_clips(self._clips.pipeline(), plans)}

    def _plans(
        self, method: str, prompt_keys: list[str], seeds: list[int], images: Tensor, z: Tensor | None
    ) -> list[ClipPlan]:
        check_chain_batch(method, prompt_keys, seeds, images)
        texts, negative = [self._text.rows(key) for key in prompt_keys], self._clips.negative()
        pictures = self._models.conditioner.of_images(images)
        return [
            ClipPlan(text, negative, given, seed, z) for text, given, seed in zip(texts, pictures, seeds, strict=True)
        ]

    @remote
    def initial_noise(self, seed: int) -> dict[str, Any]:
        """`noise`, float32 (1, C, f, h, w): the initial noise of a clip with this seed."""
        return {"noise": self._clips.pipeline().initial_noise(seed)}
