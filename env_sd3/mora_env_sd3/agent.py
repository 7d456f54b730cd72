"""The text-to-image agent of a chain: its method table. The mathematics is in `renderer`."""

from __future__ import annotations

from typing import Any

import torch
from mora_runtime import remote
from mora_runtime.errors import BadArgument

from mora_env_sd3.model_agent import Sd3ModelAgent
from mora_env_sd3.options import Sd3Options
from mora_env_sd3.pictures.target_frames import TargetFrames


class Sd3Agent(Sd3ModelAgent):
    """Text to image with Stable Diffusion 3, differentiable in z and in the transformer's parameters.

    Args:
        options: checked options; model folders or Hub ids.
        device: of transformer, VAE and text encoders.
    """

    def __init__(self, options: Sd3Options, device: torch.device) -> None:
        super().__init__(options, device)
        self._frames = TargetFrames(options.height, options.width)

    @remote(host_arguments=["pixels"])
    def store_target(self, pixels: torch.Tensor) -> dict[str, Any]:
        """Store the first frame of a target clip, uint8 (F, H, W, 3), for the agent's own loss; returns its `key`."""
        return {"key": self._frames.store(pixels)}

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
        if len(prompt_keys) != len(seeds) or not seeds:
            raise BadArgument(f"forward: expected as many seeds as prompts, got {len(seeds)} and {len(prompt_keys)}")
        prompts, negative = self.embeddings(prompt_keys)
        settings = self.settings()
        values: dict[str, Any] = {"images": self.renderer.render(z, prompts, negative, seeds, settings)}
        if target_keys is not None:
            frames = self._frames.pictures(target_keys, self._device)
            values["loss"] = self.renderer.own_loss(z, prompts, frames, seeds, settings)
        return values
