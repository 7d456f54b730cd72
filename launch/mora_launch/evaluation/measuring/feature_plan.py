"""Features of videos that are compared with each other: which files and which frames of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mora_data.clips import duration_s
from mora_runtime.errors import DatasetError
from mora_runtime.files.durable_files import sha256_of

from mora_launch.evaluation.measuring.plan import Measured, Plan, Task, VideoTasks
from mora_launch.evaluation.measuring.result import Key, settings_hash
from mora_launch.evaluation.measuring.result_store import ResultStore
from mora_launch.evaluation.suite.dimensions import FEATURES
from mora_launch.evaluation.suite.video_file import VideoFile


@dataclass(frozen=True)
class Comparison:
    """How outputs are compared with their inputs.

    Attributes:
        metric: `tcon` or `tmean`.
        is_part: whether only the generated part of an output is compared, without the frames of its inputs.
        num_borders: frames of the inputs that are kept on each side of a part.
    """

    metric: str
    is_part: bool
    num_borders: int = 0

    @property
    def settings(self) -> dict[str, str]:
        """For summaries."""
        part = "the generated part" if self.is_part else "the whole output"
        return {"compared": part + (f" with {self.num_borders} frame of each input" if self.num_borders else "")}


def plan_features(
    plan: Plan, videos: Sequence[tuple[VideoFile, str]], how: Comparison, measured: Measured, store: ResultStore
) -> dict[str, tuple[Key, ...]]:
    """Add the features of outputs and their inputs to a plan.

    Returns:
        By name of the output, the keys of the features in the order of time: input before, output, input after.
    """
    adder = _Adder(plan, measured, store)
    found: dict[str, tuple[Key, ...]] = {}
    for video, sha256 in videos:
        place = (video.name, how.metric)
        if not video.inputs:
            plan.refused[place] = "its input is not known; name it in --pairs"
            continue
        try:
            inputs = [adder.add(each, sha256_of(each.path), {}) for each in video.inputs]
            output = adder.add(video, sha256, _cut(video, how))
        except (DatasetError, OSError) as error:
            plan.refused[place] = f"its input cannot be read: {error}"
            continue
        found[video.name] = (inputs[0], output, *inputs[1:])
    return found


class _Adder:
    """Adds features to a plan, each once."""

    def __init__(self, plan: Plan, measured: Measured, store: ResultStore) -> None:
        self._plan = plan
        self._measured = measured
        self._store = store
        self._by_path: dict[Path, VideoTasks] = {video.file.path: video for video in plan.todo}
        self._planned: set[Key] = set()

    def add(self, video: VideoFile, sha256: str, cut: Mapping[str, float]) -> Key:
        settings = {**self._measured.settings, **cut}
        key = Key(sha256, FEATURES, self._measured.version, settings_hash(settings))
        if self._store.get(key) is None and key not in self._planned:
            self._planned.add(key)
            if video.path not in self._by_path:
                self._by_path[video.path] = VideoTasks(video, [])
                self._plan.todo.append(self._by_path[video.path])
            self._by_path[video.path].tasks.append(Task(video, key, self._measured.metric, settings))
        return key


def _cut(video: VideoFile, how: Comparison) -> dict[str, float]:
    """What is cut off an output before its features are computed: as long as its inputs. Raises: DatasetError."""
    if not how.is_part:
        return {}
    lengths_s = [round(duration_s(each.path), 6) for each in video.inputs]
    after_s = lengths_s[1] if len(lengths_s) > 1 else 0.0
    return {"cut_before_s": lengths_s[0], "cut_after_s": after_s, "num_borders": how.num_borders}


def kept_frames(settings: Mapping[str, object], num_frames: int, fps: float) -> slice:
    """Return which frames of a video the features of a task with these settings are of."""

    def number(name: str) -> float:
        value = settings.get(name, 0)
        assert isinstance(value, int | float)
        return value

    borders = int(number("num_borders"))
    cut_before, cut_after = round(number("cut_before_s") * fps), round(number("cut_after_s") * fps)
    start = max(0, cut_before - borders) if cut_before else 0
    end = min(num_frames, num_frames - cut_after + borders) if cut_after else num_frames
    return slice(start, end)
