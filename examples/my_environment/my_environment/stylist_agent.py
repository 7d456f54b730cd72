"""The stylist as an agent: the methods that its interface promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mora_runtime import Agent, remote
from mora_runtime.errors import BadArgument
from safetensors.torch import load_file

from my_environment.options import StylistOptions
from my_environment.stylist import WIDTH, Stylist

WEIGHTS = "diffusion_pytorch_model.safetensors"  # the name under which checkpoints contain a model's weights


class StylistAgent(Agent):
    """Restyles pictures, differentiable in them, in z and in the model's parameters."""

    def __init__(self, options: StylistOptions, device: torch.device) -> None:
        self._model = Stylist()
        self._model.load_state_dict(load_file(Path(options.model) / WEIGHTS))
        self._model.to(device)

    def module(self) -> torch.nn.Module:
        """The module that trains."""
        return self._model

    def model_config(self) -> dict[str, Any]:
        """Content of the `config.json` next to trained weights."""
        return {"width": WIDTH}

    @remote
    def modulation_rows(self, text: str, new_token: bool) -> dict[str, Any]:
        """The first value of z, float32 (1, WIDTH)."""
        return {"rows": torch.ones(1, WIDTH)}

    @remote(differentiable=True)
    def forward(
        self, z: torch.Tensor | None, prompt_keys: list[str], seeds: list[int], images: torch.Tensor
    ) -> dict[str, Any]:
        """`images` (B, 3, H, W) restyled. z is the style; prompts and seeds have no effect."""
        if images.ndim != 4 or images.shape[1] != 3 or len(images) != len(seeds):
            raise BadArgument(f"images: expected ({len(seeds)}, 3, H, W), got {tuple(images.shape)}")
        style = torch.zeros(WIDTH, device=images.device) if z is None else z.mean(dim=0)
        return {"images": self._model(images, style)}
