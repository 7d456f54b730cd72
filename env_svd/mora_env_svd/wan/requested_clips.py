"""Clips for people's requests, from pictures of any size: what the agents' capabilities share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from mora_env_svd.arguments import check_requests
from mora_env_svd.clip_generator import served_clips
from mora_env_svd.requested_texts import RequestedTexts
from mora_env_svd.wan.models import WanModels
from mora_env_svd.wan.options import WanOptions
from mora_env_svd.wan.pipeline import ClipPlan, SamplingSettings, WanPipeline
from mora_env_svd.wan.text import Umt5Text


class RequestedClips:
    """Makes clips with the settings of the options, some of which a request overrides."""

    def __init__(self, options: WanOptions, models: WanModels, text: Umt5Text) -> None:
        self._options = options
        self._models = models
        self._texts = RequestedTexts(text, options.negative_prompt)
        self._settings = SamplingSettings(options.num_inference_steps, options.guidance_scale)

    def made(
        self,
        prompts: list[str],
        seeds: list[int],
        given: Sequence[Sequence[Tensor]],
        sampling: tuple[int | None, float | None],
        negative_prompt: str | None,
        z: Tensor | None,
        *,
        first: int = 0,
    ) -> Tensor:
        """The frames of the clips from `first` on, uint8 (B, F - first, H, W, 3).

        Args:
            given: of each clip: its given pictures, uint8 (H, W, 3).
            sampling: number of steps and guidance; None = as in the options.
        """
        check_requests(prompts, seeds, given)
        texts, negative = self._texts.rows(prompts, negative_prompt)
        conditioner = self._models.conditioner
        plans = [
            ClipPlan(text, negative, conditioner.of_bytes(pictures), seed, z)
            for text, pictures, seed in zip(texts, given, seeds, strict=True)
        ]
        return served_clips(self.pipeline(*sampling), plans, first=first)

    def pipeline(self, num_inference_steps: int | None = None, guidance_scale: float | None = None) -> WanPipeline:
        changes: dict[str, Any] = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        settings = replace(self._settings, **{name: value for name, value in changes.items() if value is not None})
        return self._models.pipeline(settings)

    def negative(self) -> Tensor:
        """Rows of the negative prompt of the options, which are stored."""
        return self._texts.negative()

    def described(self) -> dict[str, Any]:
        """What `describe` tells."""
        options = self._options
        return {
            "model": options.model,
            "height": options.height,
            "width": options.width,
            "num_frames": options.num_frames,
            "size_multiple": self._models.layout.size_multiple,
            "largest_side": max(options.height, options.width),
            "num_inference_steps": options.num_inference_steps,
            "least_num_inference_steps": 1,
            "guidance_scale": options.guidance_scale,
            "takes_negative_prompt": True,
        }
