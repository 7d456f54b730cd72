"""The critic: an agent whose loss trains the agents before it. It has no parameters and never trains."""

from __future__ import annotations

from typing import Any

import torch
from kornia.color import rgb_to_grayscale
from mora_runtime import Agent, remote

from my_environment.options import BrightnessOptions


class BrightnessAgent(Agent):
    """Likes pictures of one mean brightness, whatever the prompt says."""

    def __init__(self, options: BrightnessOptions, device: torch.device) -> None:
        self._wanted = options.wanted

    @remote
    def score(self, prompts: list[str], images: torch.Tensor) -> dict[str, Any]:
        """`scores` float32 (B,), at most 0, which is best."""
        brightness = rgb_to_grayscale(0.5 + 0.5 * images).mean(dim=(1, 2, 3))
        return {"scores": -((brightness - self._wanted) ** 2)}

    @remote(differentiable=True)
    def loss(self, prompts: list[str], images: torch.Tensor) -> dict[str, Any]:
        """`loss`: the mean score, negated."""
        return {"loss": -self.score(prompts, images)["scores"].mean()}
