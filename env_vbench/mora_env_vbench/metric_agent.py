"""What all metrics' agents do: they tell what they measure, check calls, and refuse numbers that are not finite."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mora_runtime import Agent, remote
from mora_runtime.files.durable_files import sha256_of
from torch import Tensor

from mora_env_vbench.arguments import check_call, finite
from mora_env_vbench.published_files import PublishedFile

_DIGITS = 16  # of a file's SHA-256 in a version


class MetricAgent(Agent):
    """One network with the dimensions that are computed from it.

    Args:
        model: name of the network.
        formulas: by dimension, the version of its formula; it goes up when scores change.
        least: number of frames that a video needs.
        files: of the weights, with the paths that were loaded.
        settings: options that change scores, as text.
    """

    def __init__(
        self,
        model: str,
        formulas: dict[str, int],
        *,
        least: int,
        files: Sequence[tuple[PublishedFile, Path]],
        settings: str = "",
    ) -> None:
        self._model = model
        self._dimensions = list(formulas)
        self._least = least
        digests = [sha256_of(path)[:_DIGITS] for _, path in files]
        self._versions = [" ".join(filter(None, [str(formulas[name]), settings, *digests])) for name in formulas]
        self._notes = [line for file, _ in files for line in file.notes()]

    @remote
    def describe(self) -> dict[str, Any]:
        """`model`, `dimensions`, `versions` of these (formula, settings, digests of the weights), and `notes`."""
        return {
            "model": self._model,
            "dimensions": self._dimensions,
            "versions": self._versions,
            "notes": self._notes,
        }

    @remote(host_arguments=("frames",))
    def measure(self, dimension: str, frames: torch.Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        """`score` and `weight` of one video, with details; see `mora_environment.protocols.Metric`.

        Raises:
            BadArgument: the video has no score; one line says why.
        """
        check_call(frames, dimension, self._dimensions, least=self._least)
        with torch.inference_mode():
            return finite(dimension, self._measured(dimension, frames, fps, prompt, words))

    @abstractmethod
    def _measured(self, dimension: str, frames: Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        """The answer of `measure` for checked arguments."""


def in_pieces(frames: Tensor, size: int, device: torch.device, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of frames (F, H, W, 3), computed on the device `size` frames at a time; float32 on the CPU."""
    return torch.cat([function(piece.to(device)).float().cpu() for piece in frames.split(size)])
