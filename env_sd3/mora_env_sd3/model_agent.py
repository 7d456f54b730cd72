"""What all agents of Stable Diffusion 3 share: models, texts, and capabilities for requests. No access to sockets."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from mora_environment.job_folder import job_folder
from mora_runtime import Agent, cancelled_samples, check_cancelled, empty, remote, report_step
from mora_runtime.errors import BadArgument

from mora_env_sd3.image_generator import ImageGenerator, PictureRequest
from mora_env_sd3.options import Sd3Options
from mora_env_sd3.renderer import FeatureMap, Renderer, RenderSettings
from mora_env_sd3.text_encoders import TextEmbedding, TextEncoders

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_NUM_SERVED_PROMPTS = 256  # number of cached embeddings; a server that runs for days must not keep them all


class Sd3ModelAgent(Agent):
    """Stable Diffusion 3 without a place in a chain: a subclass has `forward`.

    Args:
        options: checked options; model folders or Hub ids.
        device: of transformer, VAE and text encoders.
    """

    def __init__(self, options: Sd3Options, device: torch.device) -> None:
        dtype = DTYPES[options.dtype]
        self._options = options
        self._device = device
        source, subfolder = (options.transformer, None) if options.transformer else (options.model, "transformer")
        # only safetensors, because other formats can contain a program
        transformer = SD3Transformer2DModel.from_pretrained(
            source, subfolder=subfolder, dtype=dtype, use_safetensors=True
        )
        vae = AutoencoderKL.from_pretrained(options.model, subfolder="vae", dtype=dtype, use_safetensors=True)
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(options.model, subfolder="scheduler")
        self._transformer = transformer.to(device)
        vae = vae.to(device).requires_grad_(False)
        if options.gradient_checkpointing:
            self._transformer.enable_gradient_checkpointing()
            self._transformer.train()  # diffusers checkpoints only in train mode; there is no dropout
        if options.position == "feature":
            width = self._transformer.config.joint_attention_dim
            self._transformer.mora_feature_map = FeatureMap(width, device, dtype)
        self.renderer = Renderer(self._transformer, vae, scheduler)
        self._encoders = TextEncoders(
            options.model, dtype, device, options.max_sequence_length, folder=job_folder("text")
        )
        self._negative: TextEmbedding | None = None
        self._generator = ImageGenerator(self.renderer, batch_invariant=options.batch_invariant)
        self._embedding = lru_cache(_NUM_SERVED_PROMPTS)(self._encoders.embed)

    def module(self) -> torch.nn.Module:
        """The transformer; VAE and text encoders never train."""
        return self._transformer

    def model_config(self) -> dict[str, Any]:
        """The transformer's config.json, as diffusers writes it."""
        config: dict[str, Any] = dict(self._transformer.config)
        config = {name: value for name, value in config.items() if not name.startswith("_")}
        return {"_class_name": type(self._transformer).__name__, **config}

    def settings(
        self,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> RenderSettings:
        """Settings of image generation, with those that a call overrides."""
        options = self._options
        num_steps = options.num_inference_steps if num_inference_steps is None else num_inference_steps
        return RenderSettings(
            height=height or options.height,
            width=width or options.width,
            num_inference_steps=num_steps,
            guidance_scale=options.guidance_scale if guidance_scale is None else guidance_scale,
            gradient_steps=num_steps if options.gradient_steps == "all" else min(options.gradient_steps, num_steps),
            position=options.position,
        )

    @remote
    def encode(self, prompts: list[str]) -> dict[str, Any]:
        """Keys of the prompts' embeddings, which stay in this process."""
        self._negative_embedding()  # computed while the encoders are loaded anyway
        return {"keys": self._encoders.encode(prompts)}

    def _negative_embedding(self) -> TextEmbedding:
        if self._negative is None:
            self._negative = self._encoders.get(self._encoders.encode([self._options.negative_prompt])[0])
        return self._negative

    def embeddings(self, keys: list[str]) -> tuple[list[TextEmbedding], TextEmbedding]:
        """The embeddings of these keys, and the one of the negative prompt."""
        return [self._encoders.get(key) for key in keys], self._negative_embedding()

    @remote
    def modulation_rows(self, text: str, new_token: bool) -> dict[str, Any]:
        """Rows that start z_1: float32 (rows, T5 width)."""
        each = self._options.encoders == "each"
        return {"rows": self._encoders.rows(text, new_token=new_token, each=each)}

    @remote
    def unload_text_encoder(self) -> dict[str, Any]:
        """Free the text encoders; a new prompt loads them again."""
        self._encoders.unload()
        return {}

    @remote
    def initial_noise(self, seed: int) -> dict[str, Any]:
        """`noise`, float32 (1, C, H/8, W/8): the initial noise of a picture with this seed."""
        return {"noise": self.renderer.initial_latents([seed], self.settings()).float()}

    @remote
    def describe(self) -> dict[str, Any]:
        """Defaults for requests (size in pixels, steps, guidance), and the sizes that the model can make.

        `batch_invariant`: whether a picture's bytes are the same in any batch.
        """
        options = self._options
        largest = self._transformer.config.pos_embed_max_size * self._transformer.config.patch_size * 8
        return {
            "model": options.model,
            "height": options.height,
            "width": options.width,
            "num_frames": 1,
            "size_multiple": 16,
            "largest_side": largest,
            "num_inference_steps": options.num_inference_steps,
            "least_num_inference_steps": 1,
            "guidance_scale": options.guidance_scale,
            "takes_negative_prompt": True,
            "batch_invariant": options.batch_invariant,
        }

    @remote
    def text_to_image(
        self,
        prompts: list[str],
        seeds: list[int],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """Capability: `outputs` uint8 (B, H, W, 3), one picture per prompt and seed.

        The same prompt, seed and settings give the same bytes in any batch, unless `batch_invariant` is false. Rows of
        cancelled samples are zero.
        """
        settings = self.settings(height, width, num_inference_steps, guidance_scale)
        return self._make(prompts, seeds, settings, negative_prompt, z)

    @remote
    def image_to_image(
        self,
        prompts: list[str],
        seeds: list[int],
        images: torch.Tensor,
        strength: float,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """Capability: `outputs` uint8 (B, H, W, 3): `images` uint8 (B, H, W, 3) changed towards their prompts.

        Args:
            strength: share of the denoising steps that run, above 0 and up to 1; a higher one changes the picture more.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise BadArgument(f"images: expected uint8 (B, H, W, 3), got {images.dtype} {tuple(images.shape)}")
        if not 0.0 < strength <= 1.0:
            raise BadArgument(f"strength: expected above 0 and at most 1, got {strength}")
        height, width = images.shape[1:3]
        settings = self.settings(height, width, num_inference_steps, guidance_scale)
        return self._make(prompts, seeds, settings, negative_prompt, z, images=images, strength=strength)

    def _make(
        self,
        prompts: list[str],
        seeds: list[int],
        settings: RenderSettings,
        negative_prompt: str | None,
        z: torch.Tensor | None,
        *,
        images: torch.Tensor | None = None,
        strength: float = 1.0,
    ) -> dict[str, Any]:
        if not prompts or len(prompts) != len(seeds) or (images is not None and len(images) != len(seeds)):
            raise BadArgument(f"expected as many seeds (and images) as prompts, got {len(seeds)} and {len(prompts)}")
        if settings.height % 16 or settings.width % 16:
            raise BadArgument(f"size: expected multiples of 16, got {settings.width}x{settings.height}")
        negative = self._negative_embedding() if negative_prompt is None else self._embedding(negative_prompt)
        pictures = [None] * len(prompts) if images is None else list(images.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
        requests = []
        for prompt, seed, picture in zip(prompts, seeds, pictures, strict=True):
            check_cancelled()
            requests.append(PictureRequest(self._embedding(prompt), negative, seed, picture))
        made = self._generator.generate(
            requests, settings, strength=strength, z=z, on_step=report_step, given_up=cancelled_samples
        )
        outputs = empty((len(prompts), settings.height, settings.width, 3), torch.uint8)
        for index in range(len(prompts)):
            outputs[index] = made.get(index, torch.zeros((), dtype=torch.uint8))
        return {"outputs": outputs}
