"""The image-to-image agent of a chain: its method table. The mathematics is in `image_to_image`."""

from __future__ import annotations

from typing import Any

import torch
from mora_runtime import remote
from mora_runtime.errors import BadArgument

from mora_env_sd3.image_to_image import ImageToImageRenderer
from mora_env_sd3.model_agent import Sd3ModelAgent
from mora_env_sd3.options import Sd3ImageToImageOptions

_NOISE_STREAM = 0x32726566


class Sd3ImageToImageAgent(Sd3ModelAgent):
    """Image to image with Stable Diffusion 3, differentiable in the images, in z and in the transformer's parameters.

    A chain gives all agents the same seeds. An image that was made from some noise, and is noised with it again, comes
    back nearly unchanged. So this agent draws other noise from a seed than the text-to-image agent.

    Args:
        options: checked options; model folders or Hub ids.
        device: of transformer, VAE and text encoders.
    """

    def __init__(self, options: Sd3ImageToImageOptions, device: torch.device) -> None:
        super().__init__(options, device)
        self._strength = options.strength
        self._image_to_image = ImageToImageRenderer(self.renderer)

    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], images: torch.Tensor
    ) -> dict[str, Any]:
        """Images of a micro-batch, changed towards their prompts.

        The gradient goes through the VAE decode, the last K denoising steps and the VAE encode; in earlier steps the
        transformer's prediction counts as a constant.

        Args:
            z: float32 (rows, d), or None.
            prompt_keys, seeds: one for each image.
            images: float (B, 3, H, W) in [-1, 1]; other sizes are scaled to cover and cropped at the centre.

        Returns:
            `images` (B, 3, height, width) float32, about [-1, 1].
        """
        if not images.is_floating_point() or images.ndim != 4 or images.shape[1] != 3:
            raise BadArgument(f"images: expected float (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        if not seeds or not len(prompt_keys) == len(seeds) == len(images):
            raise BadArgument(
                "forward: expected as many seeds and images as prompts, at least one; got "
                f"{len(prompt_keys)} prompts, {len(seeds)} seeds, {len(images)} images"
            )
        prompts, negative = self.embeddings(prompt_keys)
        own_seeds = [seed ^ _NOISE_STREAM for seed in seeds]
        made = self._image_to_image.render(z, prompts, negative, own_seeds, images, self._strength, self.settings())
        return {"images": made}

    @remote
    def initial_noise(self, seed: int) -> dict[str, Any]:
        """`noise`, float32 (1, C, H/8, W/8): the noise that `forward` adds for this seed."""
        noise: dict[str, Any] = super().initial_noise(seed ^ _NOISE_STREAM)
        return noise
