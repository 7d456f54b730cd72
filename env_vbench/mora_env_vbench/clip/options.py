"""Options of the metrics with CLIP. Checking them imports no model library."""

from __future__ import annotations

from typing import Literal

from mora_env_vbench.metric_options import ClipMetricOptions
from mora_env_vbench.published_files import AESTHETIC_HEAD, CLIP_B, CLIP_L, PublishedFile

_FILES = {"ViT-B/32": CLIP_B, "ViT-L/14": CLIP_L}


class ClipOptions(ClipMetricOptions):
    """Options of CLIP (`kind: clip`): background consistency and appearance style."""

    model: Literal["ViT-B/32", "ViT-L/14"] = "ViT-B/32"  # VBench's scores are of ViT-B/32

    @property
    def file(self) -> PublishedFile:
        """The file of the model."""
        return _FILES[self.model]

    def published(self) -> list[tuple[str, str, PublishedFile]]:
        """The model."""
        return [("weights", self.weights, self.file)]


class AestheticOptions(ClipMetricOptions):
    """Options of the aesthetic score (`kind: aesthetic`): CLIP ViT-L/14 with a linear head."""

    head: str | None = None  # file of the head, or a folder with it; None = it is where `weights` is

    @property
    def head_place(self) -> str:
        """Where the head is."""
        return self.weights if self.head is None else self.head

    def published(self) -> list[tuple[str, str, PublishedFile]]:
        """The model and its head."""
        return [("weights", self.weights, CLIP_L), ("head", self.head_place, AESTHETIC_HEAD)]
