"""What the options of all metrics have in common. Checking options imports no model library."""

from __future__ import annotations

from typing import Literal

from mora_environment.component import Component
from mora_environment.interface import Interface
from mora_environment.weights.weights_source import WeightsSource
from mora_runtime.schema import Settings
from pydantic import Field

from mora_env_vbench.published_files import PublishedFile, is_hub_id


class MetricOptions(Settings):
    """Options that every metric has."""

    weights: str = "models/vbench"  # the file of weights, a folder with it (VBench's cache, too), or a Hub id
    frames_at_once: int = Field(default=16, ge=1)  # frames, or pairs of frames, in one pass through the network

    def published(self) -> list[tuple[str, str, PublishedFile]]:
        """For each file that the agent loads: the option that names its place, that option's value, and the file."""
        raise NotImplementedError

    def dtype_nbytes(self) -> int:
        """Size of one parameter when loaded."""
        return 4

    def components(self) -> list[Component]:
        """The networks, which do not train.

        Raises:
            SettingsError: a file is not where an option names a file or folder.
        """
        return [self._component(place, file) for _, place, file in self.published()]

    def _component(self, place: str, file: PublishedFile) -> Component:
        if file.hub is None or not is_hub_id(place):
            file.find(place)
        return Component(
            name=file.name, num_parameters=file.num_parameters, dtype_nbytes=self.dtype_nbytes(), trainable=False
        )

    def weights_sources(self) -> list[WeightsSource]:
        """Those files that a repository of the Hub has."""
        return [
            WeightsSource(option=option, name=place, files=(file.name,))
            for option, place, file in self.published()
            if file.hub is not None and is_hub_id(place) and not file.is_there(place)
        ]

    def interface(self) -> Interface:
        """A metric."""
        return Interface(is_metric=True)


class ClipMetricOptions(MetricOptions):
    """Options of a metric with a CLIP network."""

    clip_dtype: Literal["float32", "float16"] = "float32"  # of CLIP; float16 as VBench computes on GPUs

    def dtype_nbytes(self) -> int:
        """Size of one parameter when loaded."""
        return 2 if self.clip_dtype == "float16" else 4
