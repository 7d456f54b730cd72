"""Metrics that differ from the sound one in one way."""

from typing import Any

import torch
from mora_environment import Kind
from mora_runtime import remote

from toy_environment.metric import MetricAgent
from toy_environment.options import MetricOptions


class OneVersion(MetricAgent):
    @remote
    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "versions": ["1"]}


class WholeScore(MetricAgent):
    def answer(self, dimension: str, frames: torch.Tensor) -> dict[str, Any]:
        return {**super().answer(dimension, frames), "score": 1}


class NoWeight(MetricAgent):
    def answer(self, dimension: str, frames: torch.Tensor) -> dict[str, Any]:
        return {**super().answer(dimension, frames), "weight": 0.0}


class NanOfSecondDimension(MetricAgent):
    def answer(self, dimension: str, frames: torch.Tensor) -> dict[str, Any]:
        found = super().answer(dimension, frames)
        return {**found, "score": float("nan")} if dimension == "darkness" else found


class DoubleDetail(MetricAgent):
    def answer(self, dimension: str, frames: torch.Tensor) -> dict[str, Any]:
        return {**super().answer(dimension, frames), "frames": frames.double().mean(dim=(1, 2, 3))}


class Remembers(MetricAgent):
    _before = 0.0

    def answer(self, dimension: str, frames: torch.Tensor) -> dict[str, Any]:
        found = super().answer(dimension, frames)
        self._before, score = found["score"], found["score"] + self._before
        return {**found, "score": score}


class ChangesFrames(MetricAgent):
    def answer(self, dimension: str, frames: torch.Tensor) -> dict[str, Any]:
        found = super().answer(dimension, frames)
        frames[0] = 0
        return found


class TakesFloats(MetricAgent):
    @remote(host_arguments=("frames",))
    def measure(self, dimension: str, frames: torch.Tensor, fps: float, prompt: str, words: str) -> dict[str, Any]:
        return super().measure(dimension, frames.to(torch.uint8), fps, prompt, words)


class WithoutWords(MetricAgent):
    @remote
    def measure(self, dimension: str, frames: torch.Tensor, fps: float, prompt: str) -> dict[str, Any]:  # type: ignore[override]
        return self.answer(dimension, frames)


METRICS = {
    each.__name__: Kind(options=MetricOptions, build=each, tiny="toy_environment.tiny:make_metric")
    for each in (
        OneVersion, WholeScore, NoWeight, NanOfSecondDimension, DoubleDetail, Remembers, ChangesFrames, TakesFloats,
        WithoutWords,
    )
}  # fmt: skip
