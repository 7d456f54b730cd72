"""What all agents of Stable Diffusion 3 share: their models and settings. No access to sockets."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from mora_environment.job_folder import job_folder
from mora_runtime import remote

from mora_env_sd3.image_generator import ImageGenerator
from mora_env_sd3.options import Sd3Options
from mora_env_sd3.pictures.picture_agent import DTYPES
from mora_env_sd3.pictures.text_to_image_agent import TextToImageAgent
from mora_env_sd3.renderer import FeatureMap, Renderer, RenderSettings
from mora_env_sd3.text_encoders import TextEncoders


class Sd3ModelAgent(TextToImageAgent):
    """Stable Diffusion 3 without a place in a chain: a subclass has `forward`.

    Args:
        options: checked options; model folders or Hub ids.
        device: of transformer, VAE and text encoders.
    """

    size_multiple = 16

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
        texts = TextEncoders(options.model, dtype, device, options.max_sequence_length, folder=job_folder("text"))
        generator = ImageGenerator(self.renderer, batch_invariant=options.batch_invariant)
        super().__init__(self._transformer, texts, generator, options.negative_prompt)

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
    def modulation_rows(self, text: str, new_token: bool) -> dict[str, Any]:
        """Rows that start z_1: float32 (rows, T5 width)."""
        each = self._options.encoders == "each"
        return {"rows": self._encoders.rows(text, new_token=new_token, each=each)}

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
            "size_multiple": self.size_multiple,
            "largest_side": largest,
            "num_inference_steps": options.num_inference_steps,
            "least_num_inference_steps": 1,
            "guidance_scale": options.guidance_scale,
            "takes_negative_prompt": True,
            "batch_invariant": options.batch_invariant,
        }
