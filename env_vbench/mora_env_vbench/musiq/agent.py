"""MUSIQ's agent: the quality of a video's frames as pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mora_env_vbench.batch_size import num_at_once
from mora_env_vbench.metric_agent import MetricAgent, in_pieces
from mora_env_vbench.musiq.network import Musiq
from mora_env_vbench.musiq.options import MusiqOptions
from mora_env_vbench.musiq.patches import LONGER_SIDES
from mora_env_vbench.preparation.imaging_input import imaging_input
from mora_env_vbench.published_files import MUSIQ
from mora_env_vbench.weights.loading import load_network

_FULL_SCORE = 100.0  # of a frame


class MusiqAgent(MetricAgent):
    """Measures imaging_quality.

    Args:
        options: checked options.
    """

    def __init__(self, options: MusiqOptions, device: torch.device) -> None:
        path = MUSIQ.find(options.weights)
        self._network = load_network(path, Musiq.of_shapes).to(device)
        self._options, self._device = options, device
        super().__init__("MUSIQ-SPAQ", {"imaging_quality": 1}, least=1, files=[(MUSIQ, path)], settings=options.mode)

    def _measured(self, dimension: str, frames: Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        num_pixels = frames[0, :, :, 0].numel() + sum(side * side for side in LONGER_SIDES)  # of all three sizes
        size = num_at_once(self._options.frames_at_once, num_pixels, self._device)
        values = in_pieces(frames, size, self._device, self._scores)
        return {"score": float(values.double().mean()) / _FULL_SCORE, "weight": 1.0, "frames": values}

    def _scores(self, frames: Tensor) -> Tensor:
        scores: Tensor = self._network(imaging_input(frames, self._options.mode))
        return scores
