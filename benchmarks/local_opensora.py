"""The video agent inside another agent's environment, for the single-process chain.

Its networks need torch and safetensors alone, but its text encoder needs packages that are not there. So this class has
the methods of `OpenSoraAgent` that training calls, and reads the encoder's rows from the server's cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mora_env_opensora.conditioning import ClipSize
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint
from mora_env_opensora.objective import LossSettings, Target, VideoObjective
from mora_env_opensora.options import OpenSoraOptions
from mora_runtime.errors import BadArgument
from safetensors.torch import load_file


class LocalOpenSora:
    """Loss of the video agent, differentiable in z, the images and the transformer.

    Args:
        options: with a `text_cache` in which the server has stored the rows of all prompts.
        device: of the models.
    """

    def __init__(self, options: OpenSoraOptions, device: torch.device) -> None:
        if options.text_cache is None:
            raise BadArgument("text_cache: expected the folder of the server's encoder rows, got none")
        self._cache = Path(options.text_cache)
        self._model = OpenSoraInpaint.from_pretrained(options.model, device=device)
        vae = CausalVAEModel.from_pretrained(options.vae, device=device).requires_grad_(False)
        size = ClipSize(options.num_frames, options.height, options.width)
        settings = LossSettings(options.prediction_type, options.snr_gamma, options.noise_offset)
        self._objective = VideoObjective(self._model, vae, size, settings)
        self._targets: list[Target] = []

    def module(self) -> torch.nn.Module:
        """The transformer."""
        return self._model

    def encode(self, prompts: list[str]) -> dict[str, Any]:
        """Nothing: the server has encoded the prompts."""
        return {}

    @torch.no_grad()
    def store_target(self, pixels: torch.Tensor) -> dict[str, Any]:
        """`key` of a clip, uint8 (F, H, W, 3)."""
        # the video agent's memory layout, because convolutions choose their algorithm by strides too
        clip = (pixels.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1.0).transpose(0, 1)[None]
        posterior = self._objective.vae.encode(clip.to(self._objective.vae.device))
        self._targets.append(Target(posterior.mean[0], posterior.std[0]))
        return {"key": str(len(self._targets) - 1)}

    def loss(
        self,
        z: torch.Tensor | None,
        prompt_keys: list[str],
        seeds: list[int],
        images: torch.Tensor,
        target_keys: list[str],
    ) -> dict[str, Any]:
        """`loss`: scalar, the mean over the batch."""
        rows = [load_file(self._cache / f"{key}.safetensors")["rows"] for key in prompt_keys]
        targets = [self._targets[int(key)] for key in target_keys]
        return {"loss": self._objective.loss(z, rows, images, targets, seeds)}
