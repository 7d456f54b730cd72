"""The differentiable image-to-image agent: encode images, noise them, denoise the rest of the way, decode.

Plain torch over the `Renderer` of text to image, without transport.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mora_env_sd3.image_generator import posterior_seed
from mora_env_sd3.renderer import Renderer, RenderSettings
from mora_env_sd3.text_encoders import TextEmbedding


class ImageToImageRenderer:
    """Renders images from images, with the models of a text-to-image renderer."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    def render(
        self,
        z: torch.Tensor | None,
        prompts: Sequence[TextEmbedding],
        negative: TextEmbedding | None,
        seeds: Sequence[int],
        images: torch.Tensor,
        strength: float,
        settings: RenderSettings,
    ) -> torch.Tensor:
        """Images changed towards their prompts; differentiable in them, in z and in the transformer.

        Args:
            z, prompts, negative: as in `Renderer.render`.
            seeds: of each image, for its noise and the sample of its posterior.
            images: (B, 3, H, W) in [-1, 1]; other sizes are scaled to cover and cropped at the centre.
            strength: share of the denoising steps that run, above 0 and up to 1.

        Returns:
            (B, 3, height, width) float32, about [-1, 1], not clamped.
        """
        renderer = self._renderer
        condition = renderer.condition(z, prompts, negative, settings)
        noise = renderer.initial_latents(seeds, settings)
        scheduler, timesteps = renderer.schedule(settings, noise, strength)
        fitted = fit_images(images.to(noise.device), settings.height, settings.width)
        clean = renderer.encode(fitted, [posterior_seed(seed) for seed in seeds]).to(noise)
        latents = scheduler.scale_noise(clean, timesteps[:1], noise)
        return renderer.decode(renderer.denoise(latents, scheduler, timesteps, condition, settings))


def fit_images(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B, 3, h, w) -> (B, 3, height, width): scaled to cover, then cropped at the centre; differentiable."""
    own_height, own_width = images.shape[-2:]
    if (own_height, own_width) == (height, width):
        return images
    scale = max(height / own_height, width / own_width)
    covering = (max(height, round(own_height * scale)), max(width, round(own_width * scale)))
    larger = torch.nn.functional.interpolate(images, size=covering, mode="bilinear", antialias=True)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    return larger[..., top : top + height, left : left + width]
