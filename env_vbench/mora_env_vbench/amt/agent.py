"""AMT's agent: how smoothly a video moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mora_runtime.errors import BadArgument
from torch import Tensor

from mora_env_vbench.amt.network import Amt
from mora_env_vbench.amt.options import AmtOptions
from mora_env_vbench.arguments import check_sides
from mora_env_vbench.batch_size import num_at_once
from mora_env_vbench.formulas.smoothness import made_differences, smoothness, to_bytes
from mora_env_vbench.metric_agent import MetricAgent
from mora_env_vbench.preparation.network_input import channels_first
from mora_env_vbench.preparation.padding import padded, unpadded
from mora_env_vbench.published_files import AMT
from mora_env_vbench.weights.loading import load_network

_MOTION = "motion_smoothness"
_MULTIPLE = 16  # of which padded sides are multiples


class AmtAgent(MetricAgent):
    """Measures motion_smoothness: every second frame is made from its neighbours and compared.

    Args:
        options: checked options.
    """

    def __init__(self, options: AmtOptions, device: torch.device) -> None:
        path = AMT.find(options.weights)
        self._network = load_network(path, Amt.of_shapes, within="state_dict.").to(device)
        self._options, self._device = options, device
        super().__init__("AMT-S", {_MOTION: 1}, least=3, files=[(AMT, path)])

    def _measured(self, dimension: str, frames: Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        check_sides(frames, _MULTIPLE, dimension)
        differences = torch.cat(list(self._differences(frames)))
        return {"score": smoothness(differences), "weight": 1.0, "differences": differences.float()}

    def _differences(self, frames: Tensor) -> Iterator[Tensor]:
        """Of frames 1, 3, 5, ... from those made between their neighbours, some frames at a time."""
        kept = frames[::2]
        size = num_at_once(self._options.frames_at_once, frames[0, :, :, 0].numel(), self._device)
        for start in range(0, len(kept) - 1, size):
            made = self._middles(kept[start : start + size + 1])
            yield made_differences(frames[2 * start :], made)

    def _middles(self, frames: Tensor) -> Tensor:
        """Bytes (F - 1, H, W, 3) between the neighbours of frames (F, H, W, 3)."""
        pictures = padded(channels_first(frames.to(self._device)).float() / 255.0, _MULTIPLE)
        made: Tensor = self._network(pictures[:-1], pictures[1:])
        if not bool(made.isfinite().all()):  # bytes would hide it
            raise BadArgument(f"{_MOTION}: expected finite pixels between the frames of this video, got others")
        height, width = frames.shape[1:3]
        return to_bytes(unpadded(made, height, width, _MULTIPLE)).cpu()
