"""The toy metric."""

from typing import Any

import torch
from mora_runtime import Agent, remote
from mora_runtime.errors import BadArgument

from toy_environment.options import MetricOptions


class MetricAgent(Agent):
    """Measures how bright a video is, and how bright each of its frames. It has no parameters."""

    dimensions = ("brightness", "darkness")

    def __init__(self, options: MetricOptions, device: torch.device) -> None:
        self._scale = options.scale

    @remote
    def describe(self) -> dict[str, Any]:
        versions = ["1"] * len(self.dimensions)
        return {"model": "toy", "dimensions": list(self.dimensions), "versions": versions, "notes": ["public domain"]}

    @remote(host_arguments=("frames",))
    def measure(self, dimension: str, frames: torch.Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        if dimension not in self.dimensions:
            raise BadArgument(f"dimension: expected {' or '.join(self.dimensions)}, got {dimension}")
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
            raise BadArgument(f"frames: expected uint8 (F, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
        return self.answer(dimension, frames)

    def answer(self, dimension: str, frames: torch.Tensor) -> dict[str, Any]:
        """The answer for checked arguments."""
        values = frames.float().mean(dim=(1, 2, 3)) / 255.0 * self._scale
        values = values if dimension == "brightness" else 1.0 - values
        return {"score": float(values.mean()), "weight": float(len(values)), "frames": values}
