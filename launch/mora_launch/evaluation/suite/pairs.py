"""What outputs were made from: a JSON file {output: input, or [input before, input after]}; an input of image to video
is a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mora_runtime.errors import SettingsError
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.files.shown_text import shown_line

from mora_launch.evaluation.suite.video_file import VideoFile
from mora_launch.limits import MAX_PROMPTS_FILE_NBYTES

# Which of the paper's metrics compares the outputs of a task with its inputs, and how many inputs the task has.
COMPARED = {"image-to-video": ("video_ti", 1), "extend": ("tcon", 1), "edit": ("tcon", 1), "connect": ("tmean", 2)}


def with_inputs(videos: Sequence[VideoFile], path: Path, task: str) -> tuple[VideoFile, ...]:
    """Return the videos with their inputs. A video without a line has none.

    Raises:
        SettingsError: the file cannot be read, names something that is not there, or the task has no such metric.
    """
    if task not in COMPARED:
        raise SettingsError(f"--pairs: goes with --task {', '.join(COMPARED)}; the paper compares no videos of {task}")
    metric, number = COMPARED[task]
    try:
        content = parse_object(read_foreign(path, MAX_PROMPTS_FILE_NBYTES))
    except OSError as error:
        raise SettingsError(f"--pairs {path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"--pairs {path}: expected a JSON object {{output: input}}: {error}") from None
    names = {name for video in videos for name in (video.name, video.path.name)}
    if unknown := sorted(set(content) - names):
        raise SettingsError(f"--pairs {path}: {shown_line(unknown[0], 80)} is none of the videos")
    inputs = {name: _inputs(value, f"--pairs {path}: {shown_line(name, 80)}", path.parent, number, metric)
              for name, value in content.items()}  # fmt: skip
    return tuple(replace(video, inputs=inputs.get(video.name, inputs.get(video.path.name, ()))) for video in videos)


def _inputs(value: Any, where: str, folder: Path, number: int, metric: str) -> tuple[VideoFile, ...]:
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list) or len(named) != number or not all(isinstance(each, str) for each in named):
        raise SettingsError(f"{where}: expected {number} input(s) for {metric}, got {value!r:.60}")
    found = tuple(VideoFile(folder / each, each) for each in named)
    for each in found:
        if not each.path.is_file():
            raise SettingsError(f"{where}: {each.path} is no file")
    return found
