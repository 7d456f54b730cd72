"""The Open-Sora-Plan agent: its method table, without sockets; the mathematics is in `objective` and `pipelines`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from mora_environment.job_folder import job_folder
from mora_runtime import Agent, cancelled_samples, check_cancelled, empty, remote, report_part, report_step
from mora_runtime.errors import BadArgument
from mora_training.clip_targets import ClipTargets
from mora_training.target_store import TargetStore
from torch import Tensor

from mora_env_opensora.conditioning import ClipSize, fit_image
from mora_env_opensora.model_source import resolve_folder
from mora_env_opensora.models import CausalVAEModel, OpenSoraError, OpenSoraInpaint
from mora_env_opensora.objective import LossSettings, Target, VideoObjective
from mora_env_opensora.options import OpenSoraOptions
from mora_env_opensora.pipelines import GivenFramesPipeline, SamplingSettings
from mora_env_opensora.pipelines.pixels import Allocate, frames_to_pixels, ordinary_memory
from mora_env_opensora.pipelines.schedulers import least_steps
from mora_env_opensora.text.cache import TextCache
from mora_env_opensora.text.dropout import TextDropout
from mora_env_opensora.text.encoder import TextEncoder
from mora_env_opensora.video_generator import VideoGenerator, clip_requests, stacked
from mora_env_opensora.weights_identity import digests_of, identity_of, weights_lines

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_DROPOUT_STREAM = 0x74657874
_NUM_SERVED_PROMPTS = 256  # number of cached encoder rows; a server that runs for days must not keep them all


class OpenSoraAgent(Agent):
    """Image to video with Open-Sora-Plan v1.2, differentiable in z_2, the first frame and the transformer.

    It stores, by content key, encoder rows of prompts and posteriors of target clips. Prompts are encoded as given
    (cleaned if the options say so), without upstream's quality words.
    """

    Options = OpenSoraOptions

    def __init__(
        self,
        options: OpenSoraOptions,
        model: OpenSoraInpaint,
        vae: CausalVAEModel,
        encoder: TextEncoder,
        targets: TargetStore,
    ) -> None:
        self._options = options
        self._model = model
        self._encoder = encoder
        self._size = _clip_size(options)
        self._dropout = TextDropout(options.text_dropout, options.default_text_ratio)
        clip_shape = (self._size.frames, self._size.height, self._size.width, 3)
        self._targets = ClipTargets(targets, clip_shape, lambda frames: self._encoded(frames)._asdict())
        self._texts_of_options: dict[str, str] | None = None
        settings = LossSettings(options.prediction_type, options.snr_gamma, options.noise_offset)
        sampling = SamplingSettings(
            options.scheduler, options.num_inference_steps, options.guidance_scale, options.prediction_type
        )
        self._vae = vae.requires_grad_(False)
        self._objective = VideoObjective(model, vae, self._size, settings)
        self._sampling = sampling
        self._rows_of = lru_cache(_NUM_SERVED_PROMPTS)(encoder.rows_of)

    @classmethod
    def from_options(cls, options: OpenSoraOptions, device: torch.device) -> OpenSoraAgent:
        """Load the models in the options. The text encoder is loaded when a prompt is not cached.

        Raises:
            OpenSoraError: a folder is absent, or weights and config do not fit.
        """
        dtype = DTYPES[options.dtype]
        load = OpenSoraInpaint.from_text_to_video if options.from_text_to_video else OpenSoraInpaint.from_pretrained
        model = load(resolve_folder(options.model), dtype=dtype, device=device)
        vae = CausalVAEModel.from_pretrained(
            resolve_folder(options.vae), dtype=DTYPES[options.vae_dtype], device=device
        )
        model.gradient_checkpointing = options.gradient_checkpointing
        vae.enable_gradient_checkpointing(options.gradient_checkpointing)
        vae.enable_tiling(options.vae_tiling)
        encoder = TextEncoder(
            options.text_encoder,
            tokenizer=options.tokenizer,
            dtype=dtype,
            device=device,
            max_length=options.max_length,
            clean=options.clean_caption,
            cache=TextCache(_cache_folder(options.text_cache, "text")),
            cache_outlives_job=options.text_cache is not None,
        )
        folder = _cache_folder(options.target_cache, "targets")
        identity = _autoencoder_identity(options, folder, device)
        return cls(options, model, vae, encoder, target_store(_clip_size(options), folder, identity))

    def module(self) -> torch.nn.Module:
        """The transformer; autoencoder and text encoder never train."""
        return self._model

    def model_config(self) -> dict[str, Any]:
        """The transformer's config.json, as upstream writes it."""
        return self._model.config_json()

    @remote
    def encode(self, prompts: list[str]) -> dict[str, Any]:
        """`keys` of the prompts' encoder rows, which stay here. An empty prompt is the unconditional text."""
        with _as_bad_argument():
            self._encode_own_texts()  # computed while the encoder is loaded anyway
            return {"keys": [self._encoder.encode(prompt) for prompt in prompts]}

    @remote
    def modulation_rows(self, text: str, new_token: bool = False) -> dict[str, Any]:
        """`rows` that initialise z_2, float32 (content tokens, d): encoder rows of `text` as given, without </s>.

        Args:
            new_token: one token whose input embedding is the vocabulary's mean, instead of `text`.
        """
        with _as_bad_argument():
            return {"rows": self._encoder.new_token_row() if new_token else self._encoder.content_rows(text)}

    @remote
    def unload_text_encoder(self) -> dict[str, Any]:
        """Free the text encoder; a prompt that is not cached loads it again. `unloaded` says whether it was loaded."""
        self._encode_own_texts()
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
        """The posterior of a clip. The bytes go to the device, where they become four times as large."""
        pixels = frames_to_pixels(frames.to(self._vae.device), self._size.height, self._size.width)
        posterior = self._vae.encode(pixels.transpose(0, 1)[None])
        return Target(posterior.mean[0].float().cpu(), posterior.std[0].float().cpu())

    @remote(differentiable=True)
    def loss(
        self, z: Tensor | None, prompt_keys: list[str], images: Tensor, target_keys: list[str], seeds: list[int]
    ) -> dict[str, Any]:
        """`loss`, scalar float32: the mean over the batch of each target's denoising loss given its first frame.

        Args:
            z: z_2, float32 (rows, d), or None.
            images: first frames (B, 3, H, W) in [-1, 1]; other sizes are scaled to cover and cropped at the centre.
            prompt_keys, target_keys, seeds: one for each image; all randomness of a sample comes from its seed.
        """
        with _as_bad_argument():
            if len(prompt_keys) != len(seeds):
                raise BadArgument(
                    f"loss: expected a seed per prompt, got {len(seeds)} seeds, {len(prompt_keys)} prompts"
                )
            texts = [self._training_text(key, seed) for key, seed in zip(prompt_keys, seeds, strict=True)]
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
            z: z_2, float32 (rows, d), or None.
            prompt_keys, seeds: one for each image.
            images: first frames, float (B, 3, H, W) in [-1, 1]; other sizes are scaled to cover and cropped.
            target_keys: of target clips, one for each image; with them the `loss` of the method `loss` is returned too.
        """
        with _as_bad_argument():
            steps = self._options.gradient_steps
            if steps is None:
                raise BadArgument("forward: expected the option `gradient_steps`, which says how much has a gradient")
            pipeline = self._pipeline(None, None)
            num_steps = pipeline.sampler.num_model_calls() if steps == "all" else steps
            clips = [
                pipeline.pixels(text, self._negative(), [first], [0], seed, z=z, gradient_steps=num_steps)
                for text, first, seed in self._first_frames("forward", prompt_keys, seeds, images)
            ]
            values: dict[str, Any] = {"frames": torch.stack([clip.float() for clip in clips])}
            if target_keys is not None:
                values |= self.loss(z, prompt_keys, images, target_keys, seeds)
            return values

    @remote
    def generate(self, z: Tensor | None, prompt_keys: list[str], seeds: list[int], images: Tensor) -> dict[str, Any]:
        """`outputs`, uint8 (B, F, H, W, 3): a clip from each first frame, made one after the other.

        Args:
            z, prompt_keys, seeds, images: as in `forward`.
        """
        with _as_bad_argument():
            size = self._size
            pipeline, negative = self._pipeline(None, None, allocate=ordinary_memory), self._negative()
            samples = self._first_frames("generate", prompt_keys, seeds, images)
            outputs = empty((len(samples), size.frames, size.height, size.width, 3), torch.uint8)
            for index, (text, first, seed) in enumerate(samples):
                outputs[index] = pipeline.sample(text, negative, [first], [0], seed, z=z)
            return {"outputs": outputs}

    def _first_frames(
        self, method: str, prompt_keys: list[str], seeds: list[int], images: Tensor
    ) -> list[tuple[Tensor, Tensor, int]]:
        """Of each sample: encoder rows, first frame (1, 3, H, W) of the model's size, seed."""
        if not seeds or not len(prompt_keys) == len(seeds) == len(images):
            raise BadArgument(
                f"{method}: expected as many seeds and images as prompts, at least one; got "
                f"{len(prompt_keys)} prompts, {len(seeds)} seeds, {len(images)} images"
            )
        fitted = fit_image(images.float(), self._size.height, self._size.width).split(1)
        texts = [self._encoder.rows(key) for key in prompt_keys]
        return list(zip(texts, fitted, seeds, strict=True))

    @remote
    def initial_noise(self, seed: int) -> dict[str, Any]:
        """`noise`, float32 (1, C, T, h, w): the initial noise of a clip with this seed."""
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
            "size_multiple": 16,
            "largest_side": max(size.height, size.width),
            "num_inference_steps": sampling.num_inference_steps,
            "least_num_inference_steps": least_steps(sampling.scheduler),
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
        with _as_bad_argument():
            frames = stacked(images, 4, "images")[:, None]
            return {"outputs": self._clips(prompts, seeds, frames, (0,), sampling, negative_prompt, z)}

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
        with _as_bad_argument():
            given = stacked(videos, 5, "videos").shape[1]
            if not 1 <= given < self._size.frames:
                raise BadArgument(f"videos: expected 1 to {self._size.frames - 1} given frames, got {given}")
            clips = self._clips(prompts, seeds, videos, tuple(range(given)), sampling, negative_prompt, z, first=given)
            outputs = empty((clips.shape[0], clips.shape[1] - given, *clips.shape[2:]), torch.uint8)
            return {"outputs": outputs.copy_(clips[:, given:])}

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
        with _as_bad_argument():
            ends = torch.stack([stacked(images, 4, "images"), stacked(images_after, 4, "images_after")], dim=1)
            return {"outputs": self._clips(prompts, seeds, ends, (0, -1), sampling, negative_prompt, z)}

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
        """The clips, whole. Their frames from `first` on are sent as parts while they are decoded."""

        def send(sample: int, start: int, decoded: Tensor) -> None:
            if start + len(decoded) > first:
                report_part(sample=sample, start=max(0, start - first), outputs=decoded[max(0, first - start) :])

        texts = []
        for prompt in prompts:
            check_cancelled()
            texts.append(self._rows_of(prompt))
        pipeline = self._pipeline(*sampling, allocate=ordinary_memory)
        negative = self._negative() if negative_prompt is None else self._rows_of(negative_prompt)
        generator = VideoGenerator(pipeline, report_step, cancelled_samples, send)
        made = generator.generate(clip_requests(texts, seeds, list(frames), given), negative, z)
        size = self._size
        outputs = empty((len(texts), size.frames, size.height, size.width, 3), torch.uint8)
        for index in range(len(texts)):
            outputs[index] = made.get(index, torch.zeros((), dtype=torch.uint8))
        return outputs

    def _pipeline(
        self, num_inference_steps: int | None, guidance_scale: float | None, allocate: Allocate = empty
    ) -> GivenFramesPipeline:
        changes: dict[str, Any] = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        settings = replace(self._sampling, **{name: value for name, value in changes.items() if value is not None})
        return GivenFramesPipeline(self._model, self._vae, self._size, settings, allocate=allocate)

    def _encode_own_texts(self) -> dict[str, str]:
        """Keys of the texts that the options imply: the negative prompt, and the replacements of text dropout."""
        if self._texts_of_options is None:
            texts = (self._options.negative_prompt, *self._dropout.replacements)
            self._texts_of_options = {text: self._encoder.encode(text) for text in texts}
        return self._texts_of_options

    def _negative(self) -> Tensor:
        return self._encoder.rows(self._encode_own_texts()[self._options.negative_prompt])

    def _training_text(self, key: str, seed: int) -> Tensor:
        if self._dropout.probability > 0:
            # A different stream from the same seed, so that dropped texts and noise are independent.
            generator = torch.Generator().manual_seed(seed ^ _DROPOUT_STREAM)
            replacement = self._dropout.replacement(self._size.frames, generator)
            if replacement is not None:
                key = self._encode_own_texts()[replacement]
        return self._encoder.rows(key)

    def _target(self, key: str) -> Target:
        return Target(**self._targets.get(key))


def target_store(size: ClipSize, folder: Path | None, identity: str) -> TargetStore:
    """The store of posteriors of clips of this size.

    Args:
        identity: of the autoencoder: weights, dtype and whatever else changes its posteriors.
    """
    shapes = dict.fromkeys(Target._fields, size.latent_shape)
    return TargetStore(shapes, folder, identity_of(identity, size))


def _clip_size(options: OpenSoraOptions) -> ClipSize:
    return ClipSize(options.num_frames, options.height, options.width)


def _cache_folder(option: str | None, name: str) -> Path | None:
    """The folder that the user chose, which is made, else the job's; None outside of a training job."""
    if option is None:
        return job_folder(name)
    Path(option).mkdir(parents=True, exist_ok=True)
    return Path(option)


def _autoencoder_identity(options: OpenSoraOptions, cache: Path | None, device: torch.device) -> str:
    """Changes with everything that the posteriors of clips depend on."""
    folder = resolve_folder(options.vae)
    digests = None if options.target_cache is None else digests_of(cache)
    lines = weights_lines(folder, (".ckpt", ".safetensors"), digests)
    return identity_of((folder / "config.json").read_text(), *lines, options.vae_dtype, options.vae_tiling, device.type)


@contextmanager
def _as_bad_argument() -> Iterator[None]:
    """Turn this distribution's errors into BadArgument with the same text, which reaches the caller."""
    try:
        yield
    except OpenSoraError as error:
        raise BadArgument(str(error)) from error
