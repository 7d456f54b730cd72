"""The aesthetic agent: how much people would like a video's frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mora_env_vbench.clip.network import load_clip_vision
from mora_env_vbench.clip.options import AestheticOptions
from mora_env_vbench.formulas.aesthetic import aesthetic_scores
from mora_env_vbench.metric_agent import MetricAgent, in_pieces
from mora_env_vbench.preparation.network_input import clip_float
from mora_env_vbench.published_files import AESTHETIC_HEAD, CLIP_L
from mora_env_vbench.weights.errors import WeightsRefused
from mora_env_vbench.weights.loading import Shapes, load_network


class AestheticAgent(MetricAgent):
    """Measures aesthetic_quality.

    Args:
        options: checked options.
    """

    def __init__(self, options: AestheticOptions, device: torch.device) -> None:
        path, head_path = CLIP_L.find(options.weights), AESTHETIC_HEAD.find(options.head_place)
        self._network = load_clip_vision(path, options.clip_dtype, device)
        self._head = load_head(head_path, self._network.sizes.embed).to(device)
        self._options, self._device = options, device
        super().__init__(
            "CLIP ViT-L/14 with the aesthetic head of LAION",
            {"aesthetic_quality": 1},
            least=1,
            files=[(CLIP_L, path), (AESTHETIC_HEAD, head_path)],
            settings=options.clip_dtype,
        )

    def _measured(self, dimension: str, frames: Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        values = in_pieces(frames, self._options.frames_at_once, self._device, self._scores)
        return {"score": float(values.mean()), "weight": 1.0, "frames": values}

    def _scores(self, frames: Tensor) -> Tensor:
        features = self._network(clip_float(frames, self._network.sizes.image))
        return aesthetic_scores(features.float(), self._head.weight, self._head.bias)


def load_head(path: Path, embed: int) -> nn.Linear:
    """The linear head of a published file, for features of length `embed`.

    Raises:
        WeightsRefused: the file cannot be read, or its head is for other features.
    """
    head = load_network(path, _head)
    if head.in_features != embed:
        raise WeightsRefused(f"{path}: expected a head for features of length {embed}, got one for {head.in_features}")
    return head


def _head(shapes: Shapes) -> nn.Linear:
    return nn.Linear(shapes["weight"][1], 1)
