"""InstructPix2Pix's agent: its method table. The mathematics is in `editor` and `objective`."""

from __future__ import annotations

from typing import Any

import torch
from mora_environment.job_folder import job_folder
from mora_runtime import cancelled_samples, check_cancelled, remote
from mora_runtime.errors import BadArgument
from torch import Tensor

from mora_env_sd3.image_generator import ImageGenerator, PictureRequest
from mora_env_sd3.image_to_image import fit_images
from mora_env_sd3.instruct_pix2pix.editor import Edit, EditSettings, PictureEditor
from mora_env_sd3.instruct_pix2pix.instructions import Instructions
from mora_env_sd3.instruct_pix2pix.objective import EditObjective
from mora_env_sd3.instruct_pix2pix.options import InstructPix2PixOptions
from mora_env_sd3.pictures.picture_agent import DTYPES, PictureAgent, checked_pixels
from mora_env_sd3.pictures.target_frames import TargetFrames
from mora_env_sd3.unet.loading import load_autoencoder, load_scheduler, load_unet

_NOISE_STREAM = 0x69703270  # a chain gives all agents the same seeds, but each must draw noise of its own


class InstructPix2PixAgent(PictureAgent):
    """Pictures edited by instructions, differentiable in the given pictures, in z and in the UNet's parameters.

    Args:
        options: checked options; model folders or Hub ids.
        device: of UNet, VAE and text encoder.
    """

    def __init__(self, options: InstructPix2PixOptions, device: torch.device) -> None:
        dtype = DTYPES[options.dtype]
        self._options = options
        self._device = device
        source, subfolder = (options.unet, None) if options.unet else (options.model, "unet")
        unet = load_unet(source, subfolder, dtype, device, recomputes=options.gradient_checkpointing)
        autoencoder = load_autoencoder(options.model, dtype, device)
        self.editor = PictureEditor(unet, autoencoder, load_scheduler(options.model))
        self._objective = EditObjective(self.editor, options.snr_gamma)
        self._frames = TargetFrames(options.height, options.width, folder=job_folder("targets"))
        texts = Instructions(options.model, dtype, device, folder=job_folder("text"))
        generator = ImageGenerator(self.editor, batch_invariant=options.batch_invariant)
        super().__init__(unet, texts, generator, options.negative_prompt)

    def settings(
        self,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> EditSettings:
        """Settings of an edit, with those that a call overrides."""
        options = self._options
        return EditSettings(
            height=height or options.height,
            width=width or options.width,
            num_inference_steps=options.num_inference_steps if num_inference_steps is None else num_inference_steps,
            guidance_scale=options.guidance_scale if guidance_scale is None else guidance_scale,
            image_guidance_scale=options.image_guidance_scale,
            gradient_steps=options.num_gradient_steps(num_inference_steps),
        )

    @remote
    def modulation_rows(self, text: str, new_token: bool) -> dict[str, Any]:
        """Rows that start z: float32 (rows, CLIP's width)."""
        return {"rows": self._encoders.rows(text, new_token=new_token)}

    @remote(host_arguments=["pixels"])
    def store_target(self, pixels: Tensor) -> dict[str, Any]:
        """Store the first frame of a target clip, uint8 (F, H, W, 3), for the agent's loss; returns its `key`."""
        return {"key": self._frames.store(pixels)}

    @remote
    def has_targets(self, keys: list[str]) -> dict[str, Any]:
        """`found`: of each key, whether its frame is stored, possibly by another process; see `store_target`."""
        return {"found": [self._frames.has(key) for key in keys]}

    @remote(differentiable=True)
    def forward(
        self,
        z: Tensor | None,
        prompt_keys: list[str],
        seeds: list[int],
        images: Tensor,
        target_keys: list[str] | None = None,
    ) -> dict[str, Any]:
        """Images of a micro-batch, changed by their prompts.

        The gradient goes through the VAE decode, the last K denoising steps and the VAE encode of the given images.

        Args:
            z: float32 (rows, d), or None.
            prompt_keys, seeds: one for each image.
            images: float (B, 3, H, W) in [-1, 1]; other sizes are scaled to cover and cropped at the centre.
            target_keys: of the targets, one for each image; with them the `loss` of the method `loss` is returned too.

        Returns:
            `images` (B, 3, height, width) float32, about [-1, 1].
        """
        pictures = self._pictures("forward", prompt_keys, seeds, images)
        prompts, negative = self.embeddings(prompt_keys)
        texts, settings = [prompt.rows for prompt in prompts], self.settings()
        made = self.editor.edited(z, texts, negative.rows, pictures, _own(seeds), settings)
        values: dict[str, Any] = {"images": made}
        if target_keys is not None:
            values |= self.loss(z, prompt_keys, seeds, images, target_keys)
        return values

    @remote(differentiable=True)
    def loss(
        self, z: Tensor | None, prompt_keys: list[str], seeds: list[int], images: Tensor, target_keys: list[str]
    ) -> dict[str, Any]:
        """`loss`, scalar float32: of the noise predicted for the targets' first frames, given the images.

        Args:
            z, prompt_keys, seeds, images, target_keys: as in `forward`.
        """
        pictures = self._pictures("loss", prompt_keys, seeds, images)
        if len(target_keys) != len(seeds):
            raise BadArgument(f"loss: expected as many target keys as seeds, got {len(target_keys)} and {len(seeds)}")
        prompts, _ = self.embeddings(prompt_keys)
        frames = self._frames.pictures(target_keys, self._device)
        texts = [prompt.rows for prompt in prompts]
        return {"loss": self._objective.loss(z, texts, pictures, frames, _own(seeds))}

    @remote
    def generate(self, z: Tensor | None, prompt_keys: list[str], seeds: list[int], images: Tensor) -> dict[str, Any]:
        """`outputs` uint8 (B, height, width, 3): the images of `forward` as bytes."""
        pictures = self._pictures("generate", prompt_keys, seeds, images)
        prompts, negative = self.embeddings(prompt_keys)
        requests = [
            PictureRequest(Edit(prompt.rows, negative.rows, self._given(picture)), seed)
            for prompt, picture, seed in zip(prompts, pictures, _own(seeds), strict=True)
        ]
        return self._made(requests, self.settings(), z)

    def _pictures(self, method: str, prompt_keys: list[str], seeds: list[int], images: Tensor) -> Tensor:
        """The images of a chain in the agent's size."""
        if not images.is_floating_point() or images.ndim != 4 or images.shape[1] != 3:
            raise BadArgument(f"images: expected float (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        if not seeds or not len(prompt_keys) == len(seeds) == len(images):
            raise BadArgument(
                f"{method}: expected as many seeds and images as prompts, at least one; got "
                f"{len(prompt_keys)} prompts, {len(seeds)} seeds, {len(images)} images"
            )
        return fit_images(images.to(self._device), self._options.height, self._options.width)

    @torch.no_grad()
    def _given(self, picture: Tensor) -> Tensor:
        """Latents of one picture (3, H, W), encoded alone, so that they do not depend on a batch."""
        return self.editor.given(picture[None])[0]

    @remote
    def initial_noise(self, seed: int) -> dict[str, Any]:
        """`noise`, float32 (1, C, H/8, W/8): the initial noise of a picture that a chain makes with this seed."""
        return {"noise": self.editor.initial_latents(_own([seed]), self.settings()).float()}

    @remote
    def describe(self) -> dict[str, Any]:
        """Defaults for requests (size in pixels, steps, guidance), and the sizes that the model can make.

        `batch_invariant`: whether a picture's bytes are the same in any batch.
        """
        options = self._options
        trained = self.editor.unet.config.sample_size * self.editor.autoencoder.scale
        return {
            "model": options.model,
            "height": options.height,
            "width": options.width,
            "num_frames": 1,
            "size_multiple": self.size_multiple,
            "largest_side": max(2 * trained, options.height, options.width),
            "num_inference_steps": options.num_inference_steps,
            "least_num_inference_steps": 1,
            "guidance_scale": options.guidance_scale,
            "takes_negative_prompt": True,
            "batch_invariant": options.batch_invariant,
        }

    @remote
    def edit_image(
        self,
        prompts: list[str],
        seeds: list[int],
        images: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        z: Tensor | None = None,
    ) -> dict[str, Any]:
        """Capability: `outputs` uint8 (B, H, W, 3): `images` uint8 (B, H, W, 3) changed by the instructions `prompts`.

        The same prompt, seed, picture and settings give the same bytes in any batch, unless `batch_invariant` is false.
        Rows of cancelled samples are zero.
        """
        pictures, (height, width) = checked_pixels(images), images.shape[1:3]
        settings = self.settings(height, width, num_inference_steps, guidance_scale)
        self._check_batch(prompts, seeds, settings, images)
        requests = []
        for index, (prompt, seed, picture) in enumerate(zip(prompts, seeds, pictures, strict=True)):
            check_cancelled()
            text = self._guided(prompt, negative_prompt)
            check_cancelled()
            # a cancelled sample leaves before the first step, so its picture need not be encoded
            gone = index in cancelled_samples()
            given = torch.zeros(self.editor.latent_shape(settings)) if gone else self._given(picture)
            requests.append(PictureRequest(Edit(text.prompt.rows, text.negative.rows, given), seed))
        return self._made(requests, settings, z)


def _own(seeds: list[int]) -> list[int]:
    return [seed ^ _NOISE_STREAM for seed in seeds]
