"""The section `evaluation` of a configuration: the metric agents, and limits of measuring."""

from __future__ import annotations

from typing import Any, Literal

from mora_runtime.schema import PositiveInt, Settings
from pydantic import Field, model_validator

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.chain_names import AgentName
from mora_launch.evaluation.captions.settings import CaptionSettings
from mora_launch.evaluation.suite.dimensions import DIMENSIONS, FEATURES


class MetricSettings(Settings):
    """One metric: a model that measures some dimensions, served by one or more processes."""

    environment: str = "vbench"  # of the checkout, or of `environments`
    kind: str | None = None  # one of the environment's kinds of metrics; None = the name of the metric
    dimensions: tuple[str, ...] = ()  # what it measures; of the metrics of VBench the default is complete
    devices: tuple[str, ...] = ("cpu",)  # one for all servers, or one for each in turn
    num_servers: PositiveInt = 1  # processes that measure side by side; the results do not depend on it
    num_threads: PositiveInt = 1  # torch's threads of each server
    tiny_models: str | None = None  # folder of the checkout for tiny models, which are created if missing
    options: dict[str, Any] = Field(default_factory=dict)  # checked by the environment before anything starts

    @model_validator(mode="after")
    def _knows_its_dimensions(self) -> MetricSettings:
        unknown = sorted(set(self.dimensions) - {*DIMENSIONS, FEATURES})
        if unknown:
            raise ValueError(f"dimensions: unknown {', '.join(unknown)}; known are {', '.join(DIMENSIONS)}")
        return self

    def agent(self, name: str) -> AgentConfig:
        """Return the agent that measures, with the device of its first server."""
        return AgentConfig(
            environment=self.environment, kind=self.kind or name, devices=self.devices[:1],
            num_threads=self.num_threads, tiny_models=self.tiny_models, options=self.options,
        )  # fmt: skip


STANDARD = {
    "dino": MetricSettings(dimensions=("subject_consistency",)),
    "clip": MetricSettings(dimensions=("background_consistency", "appearance_style")),
    "amt": MetricSettings(dimensions=("motion_smoothness",)),
    "raft": MetricSettings(dimensions=("dynamic_degree", "temporal_flickering")),
    "aesthetic": MetricSettings(dimensions=("aesthetic_quality",)),
    "musiq": MetricSettings(dimensions=("imaging_quality",)),
    "viclip": MetricSettings(dimensions=("temporal_style", "overall_consistency", FEATURES)),
}


class EvaluationSettings(Settings):
    """Metrics of videos, for `mora evaluate`. VBench's metrics are there by default; name what differs from it."""

    metrics: dict[AgentName, MetricSettings] = Field(default_factory=dict)  # changes of VBench's, and others
    deadline_s: float = Field(default=3600.0, gt=0.0)  # of one measurement of one video
    max_video_nbytes: PositiveInt = 1 << 30  # of one decoded video; a larger one is refused
    max_decoded_nbytes: PositiveInt = 2 << 30  # of all decoded videos that wait for a measurement

    # TCON of `extend` and `edit`: the input compared with the whole output, or with what comes after the input's length
    tcon: Literal["whole", "new"] = "whole"
    # Tmean of `connect`: the generated frames alone, or with one frame of each input
    tmean: Literal["generated", "with_borders"] = "generated"

    captions: CaptionSettings | None = None  # for VideoTI of `image-to-video`

    @model_validator(mode="after")
    def _fits_together(self) -> EvaluationSettings:
        if self.max_video_nbytes > self.max_decoded_nbytes:
            raise ValueError("max_video_nbytes: expected at most max_decoded_nbytes, or the video never fits")
        for name, metric in self.metrics.items():
            if name not in STANDARD and not metric.dimensions:
                raise ValueError(f"metrics.{name}: name its `dimensions`; only {', '.join(STANDARD)} have a default")
        return self

    def all_metrics(self) -> dict[str, MetricSettings]:
        """Return every metric by name: VBench's with the changes of the section, then the other ones."""
        merged = {name: _changed(standard, self.metrics.get(name)) for name, standard in STANDARD.items()}
        return {**merged, **{name: metric for name, metric in self.metrics.items() if name not in STANDARD}}

    def metrics_for(self, dimensions: tuple[str, ...]) -> dict[str, MetricSettings]:
        """Return the metrics that measure some of the dimensions. Of several for a dimension, the last one does."""
        owners = {each: name for name, metric in self.all_metrics().items() for each in metric.dimensions}
        wanted = {owners[each] for each in dimensions if each in owners}
        return {
            name: metric.model_copy(
                update={"dimensions": tuple(each for each in dimensions if owners.get(each) == name)}
            )
            for name, metric in self.all_metrics().items()
            if name in wanted
        }


def _changed(standard: MetricSettings, own: MetricSettings | None) -> MetricSettings:
    if own is None:
        return standard
    return standard.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
