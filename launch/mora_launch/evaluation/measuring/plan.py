"""What is to be measured: for each video the dimensions that have no result yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mora_launch.evaluation.measuring.result import Key, Result, settings_hash
from mora_launch.evaluation.measuring.result_store import ResultStore
from mora_launch.evaluation.suite.dimensions import DIMENSIONS
from mora_launch.evaluation.suite.video_file import VideoFile


@dataclass(frozen=True)
class Measured:
    """A dimension that a metric measures in this evaluation."""

    dimension: str
    metric: str
    version: str
    settings: Mapping[str, str]  # see `CheckedMetric`
    options: Mapping[str, Any]  # of the agent; on the version depends what of them changes scores


@dataclass
class Task:
    """One measurement to make."""

    file: VideoFile
    key: Key
    metric: str
    settings: dict[str, Any]
    num_runs: int = 0  # ended by the death of a server


@dataclass(frozen=True)
class VideoTasks:
    """All measurements to make of one file."""

    file: VideoFile
    tasks: list[Task]


@dataclass
class Plan:
    """The measurements of an evaluation.

    Attributes:
        keys: of the result of each video and dimension, by name of the video.
        todo: by video, in the order of the videos. Files of the same content are measured once.
        refused: why a dimension cannot be measured for a video, by name and dimension, known without measuring.
    """

    keys: dict[tuple[str, str], Key] = field(default_factory=dict)
    todo: list[VideoTasks] = field(default_factory=list)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def num_tasks(self) -> int:
        """Number of measurements to make."""
        return sum(len(video.tasks) for video in self.todo)

    def results(self, store: ResultStore) -> dict[tuple[str, str], Result]:
        """Return the results that are there, by name of the video and dimension, in the order of the plan."""
        found = {place: store.get(key) for place, key in self.keys.items()}
        return {place: result for place, result in found.items() if result is not None}


def make_plan(
    videos: Iterable[tuple[VideoFile, str]], measured: Sequence[Measured], store: ResultStore, mode: str
) -> Plan:
    """Plan the measurements of videos, each given with the hash of its file."""
    plan = Plan()
    planned: set[Key] = set()
    for video, sha256 in videos:
        tasks = []
        for each in measured:
            if not video.counts_for(each.dimension):
                continue
            why = _lacks(video, each.dimension)
            if why:
                plan.refused[video.name, each.dimension] = why
                continue
            task = _task(video, sha256, each, mode)
            plan.keys[video.name, each.dimension] = task.key
            if store.get(task.key) is None and task.key not in planned:
                planned.add(task.key)
                tasks.append(task)
        if tasks:
            plan.todo.append(VideoTasks(video, tasks))
    return plan


def _lacks(video: VideoFile, dimension: str) -> str:
    """Say what a dimension needs to know of a video and does not; empty if it knows all."""
    needs = DIMENSIONS[dimension].needs
    if needs == "prompt" and not video.prompt:
        return "its prompt is not known; name the file PROMPT-INDEX.mp4 or list it in --prompts"
    if needs == "words" and not video.words:
        return "the words of its style are not known; only videos of VBench's prompts for this dimension have them"
    return ""


def _task(video: VideoFile, sha256: str, each: Measured, mode: str) -> Task:
    told: dict[str, Any] = {}
    if needs := DIMENSIONS[each.dimension].needs:
        told[needs] = video.prompt if needs == "prompt" else video.words
    settings = {**each.settings, "mode": mode, **told}
    key = Key(sha256, each.dimension, each.version, settings_hash(settings))
    return Task(video, key, each.metric, settings)
