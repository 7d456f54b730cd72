"""The text-to-image agent of a chain: its method table. The mathematics is in `renderer`."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from mora_runtime import remote
from mora_runtime.errors import BadArgument

from mora_env_sd3.model_agent import Sd3ModelAgent
from mora_env_sd3.options import Sd3Options


class Sd3Agent(Sd3ModelAgent):
    """Text to image with Stable Diffusion 3, differentiable in z and in the transformer's parameters.

    Args:
        options: checked options; model folders or Hub ids.
        device: of transformer, VAE and text encoders.
    """

    def __init__(self, options: Sd3Options, device: torch.device) -> None:
        super().__init__(options, device)
        # uint8 on the CPU. At most one for each sample of the data set, because the key is a hash of the content.
        self._frames: dict[str, torch.Tensor] = {}

    @remote(host_arguments=["pixels"])
    def store_target(self, pixels: torch.Tensor) -> dict[str, Any]:
        """Store the first frame of a target clip, uint8 (F, H, W, 3), for the agent's own loss; returns its `key`."""
        height, width = self._options.height, self._options.width
        if pixels.dtype != torch.uint8 or not len(pixels) or tuple(pixels.shape[1:]) != (height, width, 3):
            expected = f"uint8 (F >= 1, {height}, {width}, 3)"
            raise BadArgument(f"pixels: expected {expected}, got {pixels.dtype} {tuple(pixels.shape)}")
        frame = pixels[0]
        key = hashlib.sha256(frame.numpy().tobytes()).hexdigest()[:32]
        if key not in self._frames:
            self._frames[key] = frame.clone()  # a copy, because the caller reuses its memory
        return {"key": key}

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
            frames = torch.stack([self._frame(key) for key in target_keys])
            values["loss"] = self.renderer.own_loss(z, prompts, frames, seeds, settings)
        return values

    def _frame(self, key: str) -> torch.Tensor:
        if key not in self._frames:
            raise BadArgument(f"unknown target key `{key[:40]}`; expected one that `store_target` returned")
        return self._frames[key].to(self._device).permute(2, 0, 1).float() / 127.5 - 1.0
