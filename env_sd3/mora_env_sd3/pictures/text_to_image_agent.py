"""The capabilities of models that make pictures from text, or from a picture and text."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from mora_runtime import check_cancelled, remote
from mora_runtime.errors import BadArgument

from mora_env_sd3.image_generator import PictureRequest
from mora_env_sd3.pictures.picture_agent import PictureAgent, PictureSize, checked_pixels


class TextToImageAgent(PictureAgent):
    """An image agent with `text_to_image` and `image_to_image`; its texts are `GuidedText`s."""

    @abstractmethod
    def settings(
        self,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> PictureSize:
        """Settings of image generation, with those that a call overrides."""

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
        self._check_batch(prompts, seeds, settings)
        return self._made(self._requests(prompts, seeds, negative_prompt, [None] * len(prompts)), settings, z)

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
        pictures = checked_pixels(images)
        if not 0.0 < strength <= 1.0:
            raise BadArgument(f"strength: expected above 0 and at most 1, got {strength}")
        height, width = images.shape[1:3]
        settings = self.settings(height, width, num_inference_steps, guidance_scale)
        self._check_batch(prompts, seeds, settings, images)
        requests = self._requests(prompts, seeds, negative_prompt, pictures)
        return self._made(requests, settings, z, strength=strength)

    def _requests(
        self, prompts: list[str], seeds: list[int], negative_prompt: str | None, pictures: list[Any]
    ) -> list[PictureRequest[Any]]:
        requests = []
        for prompt, seed, picture in zip(prompts, seeds, pictures, strict=True):
            check_cancelled()
            requests.append(PictureRequest(self._guided(prompt, negative_prompt), seed, picture))
        return requests
