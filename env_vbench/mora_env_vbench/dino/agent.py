"""DINO's agent: whether the subject of a video stays the same."""

from __future__ import annotations

from typing import Any

import torch
from mora_runtime import remote
from torch import Tensor

from mora_env_vbench.arguments import check_frames
from mora_env_vbench.batch_size import num_at_once
from mora_env_vbench.dino.network import Dino
from mora_env_vbench.dino.options import DinoOptions
from mora_env_vbench.formulas.consistency import consistency
from mora_env_vbench.metric_agent import MetricAgent, in_pieces
from mora_env_vbench.preparation.network_input import dino_float
from mora_env_vbench.published_files import DINO
from mora_env_vbench.weights.loading import load_network

_PIXELS_OF_ONE = 4  # DINO needs a quarter of the memory that a pixel needs in AMT and RAFT


class DinoAgent(MetricAgent):
    """Measures subject_consistency.

    Args:
        options: checked options.
    """

    def __init__(self, options: DinoOptions, device: torch.device) -> None:
        path = DINO.find(options.weights)
        self._network = load_network(path, Dino.of_shapes).to(device)
        self._options, self._device = options, device
        super().__init__("DINO ViT-B/16", {"subject_consistency": 1}, least=2, files=[(DINO, path)])

    @remote(host_arguments=("frames",))
    def features(self, frames: torch.Tensor) -> dict[str, Any]:
        """`features`, float32 (F, width), one row for each frame uint8 (F, H, W, 3)."""
        check_frames(frames)
        with torch.inference_mode():
            return {"features": self._features(frames)}

    def _features(self, frames: Tensor) -> Tensor:
        side = self._network.sizes.side
        size = num_at_once(self._options.frames_at_once, side * side // _PIXELS_OF_ONE, self._device)
        return in_pieces(frames, size, self._device, lambda piece: self._network(dino_float(piece, side)))

    def _measured(self, dimension: str, frames: Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        return consistency(self._features(frames))
