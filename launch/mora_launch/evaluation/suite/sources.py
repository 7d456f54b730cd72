"""Where videos come from: files, folders in VBench's naming, and runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mora_data.dataset import read_dataset
from mora_runtime.errors import SettingsError
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from mora_runtime.files.shown_text import shown_line

from mora_launch.evaluation.suite.dimensions import DIMENSIONS
from mora_launch.evaluation.suite.vbench_prompts import prompts_for, vbench_prompts
from mora_launch.evaluation.suite.video_file import SUFFIXES, VideoFile
from mora_launch.limits import MAX_PROMPTS_FILE_NBYTES
from mora_launch.resuming.run_configs import has_run, latest_config
from mora_launch.rounds.evaluation import evaluated_steps, videos
from mora_launch.rounds.prompting.held_out import held_out_prompts

PromptSet = Literal["auto", "vbench", "custom"]
_INDEX = re.compile(r"-\d+$")
_SAMPLE = re.compile(r"(before|after|step-\d+|stopped-\d+)-(\d+)")
_DATASET = Path("data") / "dataset.jsonl"  # of a run of training


@dataclass(frozen=True)
class Sources:
    """The videos of an evaluation.

    Attributes:
        prompt_set: "vbench" if every dimension counts only the videos of its own prompts, else "custom".
        missing: by dimension, how many videos of VBench's suite are not there.
    """

    videos: tuple[VideoFile, ...]
    prompt_set: Literal["vbench", "custom"]
    missing: Mapping[str, int]


def find_videos(
    sources: Sequence[Path], dimensions: Sequence[str], prompts: Path | None, prompt_set: PromptSet
) -> Sources:
    """Return the videos of all sources, in their order.

    Args:
        prompts: a JSON file {file name: prompt}.
        prompt_set: "auto" takes VBench's if all videos have prompts of it in their names.

    Raises:
        SettingsError: a source does not exist or has no videos, or the file of prompts cannot be read.
    """
    if len(sources) > 1 and (runs := [source for source in sources if has_run(source)]):
        raise SettingsError(f"{runs[0]}: is a run, whose steps are compared; evaluate it alone")
    found = [video for source in sources for video in _of_source(source)]
    _refuse_same_names(found)
    told = {} if prompts is None else read_prompts(prompts, found)
    found = [replace(video, prompt=told.get(video.name, told.get(video.path.name, video.prompt))) for video in found]
    suite = vbench_prompts()
    are_all = all(video.prompt in suite for video in found)
    if prompt_set == "vbench" and not are_all:
        other = next(video for video in found if video.prompt not in suite)
        raise SettingsError(
            f"--prompt-set vbench: {other.name} has no prompt of VBench in its name; expected PROMPT-INDEX.mp4"
        )
    if prompt_set == "custom" or not are_all:
        return Sources(tuple(found), "custom", {})
    found = [
        replace(video, words=suite[video.prompt].words or None, dimensions=suite[video.prompt].dimensions)
        for video in found
        if video.prompt is not None
    ]
    return Sources(tuple(found), "vbench", {each: _num_missing(found, each) for each in dimensions})


def read_prompts(path: Path, videos: Sequence[VideoFile]) -> dict[str, str]:
    """Read a JSON file {file name: prompt}.

    Raises:
        SettingsError: it cannot be read, a prompt is no text, or a name is none of the videos'.
    """
    try:
        content = parse_object(read_foreign(path, MAX_PROMPTS_FILE_NBYTES))
    except OSError as error:
        raise SettingsError(f"--prompts {path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"--prompts {path}: expected a JSON object {{file: prompt}}: {error}") from None
    known = {name for video in videos for name in (video.name, video.path.name)}
    for name, prompt in content.items():
        if not isinstance(prompt, str):
            raise SettingsError(
                f"--prompts {path}: {shown_line(name, 80)}: expected text, got {json.dumps(prompt)[:40]}"
            )
        if name not in known:
            raise SettingsError(f"--prompts {path}: {shown_line(name, 80)} is none of the videos")
    return content


def prompt_of(path: Path) -> str:
    """Return the prompt in a file's name, `PROMPT-INDEX.mp4`."""
    return _INDEX.sub("", path.stem)


def _of_source(source: Path) -> Iterator[VideoFile]:
    if source.is_file():
        yield VideoFile(source, source.name, prompt_of(source) if _INDEX.search(source.stem) else None)
        return
    if not source.is_dir():
        raise SettingsError(f"{source}: does not exist; expected a video, a folder of videos or a run")
    found = list(_of_run(source) if has_run(source) else _of_folder(source))
    if not found:
        what = "samples" if has_run(source) else f"videos ({', '.join(SUFFIXES)})"
        raise SettingsError(f"{source}: has no {what}")
    yield from found


def _of_folder(folder: Path) -> Iterator[VideoFile]:
    for path in sorted(folder.iterdir(), key=lambda each: _natural(each.name)):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield VideoFile(path, path.name, prompt_of(path) if _INDEX.search(path.stem) else None)


def _of_run(run: Path) -> Iterator[VideoFile]:
    """The samples of training, then the videos for the held-out prompts of rounds."""
    dataset = run / _DATASET
    prompts = [sample.prompt for sample in read_dataset(dataset)] if dataset.is_file() else []
    for path in sorted((run / "samples").glob("*.mp4"), key=lambda each: _natural(each.name)):
        named = _SAMPLE.fullmatch(path.stem)
        if named is not None:
            number = int(named[2])
            prompt = prompts[number] if number < len(prompts) else None
            yield VideoFile(path, str(path.relative_to(run)), prompt, group=named[1])
    steps = evaluated_steps(run)
    held_out = held_out_prompts(latest_config(run)) if steps else []
    for step in steps:
        for number, path in enumerate(videos(run, step)):
            prompt = held_out[number] if number < len(held_out) else None
            yield VideoFile(path, str(path.relative_to(run)), prompt, group=f"step-{step}")


def _natural(name: str) -> list[tuple[int, str]]:
    """Order of names in which 10 comes after 9, and `before` before all steps."""
    first = {"before": 0, "after": 2, "stopped": 2}.get(name.partition("-")[0], 1)
    return [(first, ""), *((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name))]


def _refuse_same_names(found: Sequence[VideoFile]) -> None:
    seen: dict[str, Path] = {}
    for video in found:
        other = seen.setdefault(video.name, video.path)
        if other != video.path:
            raise SettingsError(
                f"{other} and {video.path} have one name, so results could not be told apart; rename one, or evaluate "
                "them one after the other"
            )


def _num_missing(found: Sequence[VideoFile], dimension: str) -> int:
    """How many of the dimension's videos are not there."""
    there = sum(video.counts_for(dimension) for video in found)
    return max(0, len(prompts_for([dimension])) * DIMENSIONS[dimension].num_index - there)
