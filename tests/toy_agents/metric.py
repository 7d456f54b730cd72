"""A toy metric: brightness, and its change from frame to frame."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from mora_runtime import Agent, remote
from mora_runtime.errors import BadArgument, SettingsError

from tests.toy_agents.options import MetricOptions


class ToyMetric(Agent):
    """Scores depend on the frames, the prompt and the dimension; a video counts by its frames.

    A video of one frame, or with a side below `min_side`, is refused, as by real metrics.
    """

    def __init__(self, options: MetricOptions, device: torch.device) -> None:
        self._options = options
        if options.weights is not None and not Path(options.weights).is_file():
            raise SettingsError(f"weights {options.weights}: expected a file, there is none")

    @remote
    def describe(self) -> dict[str, Any]:
        return {
            "model": "toy",
            "dimensions": list(self._options.dimensions),
            "versions": [f"{self._options.version} x{self._options.factor:g}"] * len(self._options.dimensions),
            "notes": [f"toy weights for {', '.join(self._options.dimensions)}: not for sale"],
        }

    @remote(host_arguments=("frames",))
    def features(self, frames: torch.Tensor) -> dict[str, Any]:
        """The mean colour of a video, as a direction."""
        return {"features": torch.nn.functional.normalize(frames.float().mean(dim=(0, 1, 2)), dim=0)}

    @remote(host_arguments=("frames",))
    def measure(self, dimension: str, frames: torch.Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        if len(frames) < 2:
            raise BadArgument(f"{dimension}: expected at least 2 frames, got {len(frames)}")
        if min(frames.shape[1:3]) < self._options.min_side:
            raise BadArgument(
                f"{dimension}: expected sides of at least {self._options.min_side}, got {tuple(frames.shape[1:3])}"
            )
        if len(frames) == self._options.fatal_num_frames:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._options.delay_s)
        brightness = frames.float().mean(dim=(1, 2, 3)) / 255.0
        score = float(brightness.mean()) * self._options.factor + 0.001 * len(dimension + prompt + words)
        return {"score": score, "weight": float(len(frames) - 1), "changes": brightness.diff(), "fps": fps}
