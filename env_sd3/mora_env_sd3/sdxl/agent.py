"""Stable Diffusion XL's agent: its method table. The mathematics is in `renderer`."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from mora_environment.job_folder import job_folder
from mora_runtime import remote
from mora_runtime.errors import BadArgument, CheckpointError, SettingsError

from mora_env_sd3.image_generator import GuidedText, ImageGenerator
from mora_env_sd3.pictures.picture_agent import DTYPES
from mora_env_sd3.pictures.target_frames import TargetFrames
from mora_env_sd3.pictures.text_to_image_agent import TextToImageAgent
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_env_sd3.sdxl.renderer import Denoiser, XlNegative, XlRenderer, XlSettings
from mora_env_sd3.sdxl.text_encoders import XlEmbedding, XlTextEncoders
from mora_env_sd3.unet.loading import load_autoencoder, load_scheduler, load_unet


class SdxlAgent(TextToImageAgent):
    """Text to image, differentiable in z and in the base UNet; a refiner takes part where it is set and never trains.

    Args:
        options: checked options; model folders or Hub ids.
        device: of all models.
    """

    def __init__(self, options: SdxlOptions, device: torch.device) -> None:
        dtype = DTYPES[options.dtype]
        self._options = options
        self._device = device
        source, subfolder = (options.unet, None) if options.unet else (options.model, "unet")
        unet = load_unet(source, subfolder, dtype, device, recomputes=options.gradient_checkpointing)
        index = StableDiffusionXLPipeline.load_config(options.model)
        self._zeros_for_none = bool(index.get("force_zeros_for_empty_prompt", True))
        refiner = None if options.refiner is None else self._loaded_refiner(options.refiner, dtype)
        self.renderer = XlRenderer(
            Denoiser(unet, load_scheduler(options.model)),
            load_autoencoder(options.model, dtype, device),
            refiner,
            high_noise_share=options.high_noise_share,
            gamma=options.snr_gamma,
        )
        if not self.renderer.steps(self.settings(), torch.empty(0), [], 1.0).num_base:
            raise SettingsError(
                f"high_noise_share: expected a share that leaves the base model one of {options.num_inference_steps} "
                f"steps at least, got {options.high_noise_share}"
            )
        self._frames = TargetFrames(options.height, options.width, job_folder("frames"))
        super().__init__(
            unet,
            XlTextEncoders(options.model, dtype, device, job_folder("text")),
            ImageGenerator(self.renderer, batch_invariant=options.batch_invariant),
            options.negative_prompt or "",
        )

    def _loaded_refiner(self, refiner: str, dtype: torch.dtype) -> Denoiser:
        index = StableDiffusionXLPipeline.load_config(refiner)
        if index.get("force_zeros_for_empty_prompt", True):
            raise CheckpointError(
                f"{refiner}/model_index.json: expected force_zeros_for_empty_prompt false in a refiner"
            )
        unet = load_unet(refiner, "unet", dtype, self._device, recomputes=self._options.gradient_checkpointing)
        scores = bool(index.get("requires_aesthetics_score", False))
        return Denoiser(unet.requires_grad_(False), load_scheduler(refiner), takes_scores=scores)

    def settings(
        self,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> XlSettings:
        """Settings of image generation, with those that a call overrides."""
        options = self._options
        num_steps = options.num_inference_steps if num_inference_steps is None else num_inference_steps
        steps = options.gradient_steps
        return XlSettings(
            height=height or options.height,
            width=width or options.width,
            num_inference_steps=num_steps,
            guidance_scale=options.guidance_scale if guidance_scale is None else guidance_scale,
            gradient_steps=None if steps == "all" else steps,
            sizes=options.size_condition(),
        )

    def _negative_embedding(self) -> XlNegative:
        empty_or_own: XlEmbedding = super()._negative_embedding()
        if self._options.negative_prompt is None and self._zeros_for_none:
            return XlNegative(empty_or_own.zeros(), empty_or_own)
        return XlNegative(empty_or_own, empty_or_own)

    def _guided(self, prompt: str, negative_prompt: str | None) -> GuidedText:
        if negative_prompt is None:
            return GuidedText(self._embedding(prompt), self._negative_embedding())
        negative = self._embedding(negative_prompt)
        return GuidedText(self._embedding(prompt), XlNegative(negative, negative))

    @remote
    def modulation_rows(self, text: str, new_token: bool) -> dict[str, Any]:
        """Rows that start z: float32 (rows, width of both text encoders together)."""
        return {"rows": self._encoders.rows(text, new_token=new_token)}

    @remote(host_arguments=["pixels"])
    def store_target(self, pixels: torch.Tensor) -> dict[str, Any]:
        """Store the first frame of a target clip, uint8 (F, H, W, 3), for the agent's own loss; returns its `key`."""
        return {"key": self._frames.store(pixels)}

    @remote
    def has_targets(self, keys: list[str]) -> dict[str, Any]:
        """`found`: of each key, whether its frame is stored, possibly by another process; see `store_target`."""
        return {"found": [self._frames.has(key) for key in keys]}

    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], target_keys: list[str] | None = None
    ) -> dict[str, Any]:
        """Images of a micro-batch, with gradient through the last K denoising steps and the VAE decode.

        Args:
            z: float32 (rows, d), or None.
            prompt_keys, seeds: one for each image.
            target_keys: of the targets, one for each image; with them the agent's own loss is returned too.

        Returns:
            `images` (B, 3, H, W) float32, about [-1, 1]; `loss` scalar float32 if `target_keys` are given.
        """
        if not seeds or len(prompt_keys) != len(seeds):
            raise BadArgument(f"forward: expected as many seeds as prompts, got {len(seeds)} and {len(prompt_keys)}")
        prompts, negative = self.embeddings(prompt_keys)
        settings = self.settings()
        texts = [GuidedText(prompt, negative) for prompt in prompts]
        values: dict[str, Any] = {"images": self.renderer.render(z, texts, seeds, settings)}
        if target_keys is not None:
            frames = self._frames.pictures(target_keys, self._device)
            values["loss"] = self.renderer.own_loss(z, prompts, frames, seeds, settings)
        return values

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
        trained_side = self.renderer.base.unet.config.sample_size * self.renderer.autoencoder.scale
        return {
            "model": options.model,
            "height": options.height,
            "width": options.width,
            "num_frames": 1,
            "size_multiple": self.size_multiple,
            "largest_side": max(2 * trained_side, options.height, options.width),
            "num_inference_steps": options.num_inference_steps,
            "least_num_inference_steps": 1,
            "guidance_scale": options.guidance_scale,
            "takes_negative_prompt": True,
            "batch_invariant": options.batch_invariant,
        }
