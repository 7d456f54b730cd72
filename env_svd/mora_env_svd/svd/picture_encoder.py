"""CLIP's embedding of a picture, as the published pipeline makes it, with gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mora_env_svd.frame_coder import recomputed

SIDE = 224  # pixels of the picture that CLIP sees; the pipeline of diffusers has no other size


class PictureEncoder:
    """Pictures to embeddings.

    Args:
        model: a frozen `CLIPVisionModelWithProjection`.
        mean, std: of each colour channel in [0, 1], from the checkpoint's feature extractor.
        recomputes: keep no activations of it for the backward pass, but compute them again.
    """

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float], *, recomputes: bool = False) -> None:
        self._model = model
        self._mean = torch.tensor(mean)[:, None, None]
        self._std = torch.tensor(std)[:, None, None]
        self._recomputes = recomputes

    @property
    def model(self) -> Any:
        return self._model

    def embeddings(self, pictures: Tensor) -> Tensor:
        """Of pictures (B, 3, h, w) in [-1, 1] of any size: (B, 1, D) of the model's dtype; differentiable.

        They are stretched to a square.
        """
        parameter = next(self._model.parameters())
        resized = (squared(pictures.float()) + 1.0) / 2.0
        normal = (resized - self._mean.to(resized.device)) / self._std.to(resized.device)
        return recomputed(self._embedded, normal.to(parameter.device, parameter.dtype), is_wanted=self._recomputes)

    @torch.no_grad()
    def grey_embeddings(self, number: int) -> Tensor:
        """Of plain grey pictures, their brightnesses evenly spaced between black and white: float32 (number, D)."""
        levels = (torch.arange(number) + 1.0) / (number + 1.0) * 2.0 - 1.0
        pictures = levels[:, None, None, None].expand(-1, 3, SIDE, SIDE)
        return torch.cat([self.embeddings(picture)[0] for picture in pictures.split(1)]).float().cpu()

    def _embedded(self, pixels: Tensor) -> Tensor:
        found: Tensor = self._model(pixels).image_embeds[:, None]
        return found


def squared(pictures: Tensor) -> Tensor:
    """Pictures (B, 3, h, w) -> (B, 3, 224, 224): blurred against aliasing, then bicubic, by the pipeline's function."""
    from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion

    found: Tensor = pipeline_stable_video_diffusion._resize_with_antialiasing(pictures, (SIDE, SIDE))
    return found
