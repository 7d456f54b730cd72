"""Training samples: read from JSON lines, cut from one video, or drawn; and the order in which training uses them.

The launcher resolves the user's data to a JSON-lines file in the run directory and checks every line by decoding its
clip; the coordinator reads that file. Needs no torch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mora_runtime.errors import DatasetError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.files.foreign_file import open_foreign
from mora_runtime.files.foreign_json import parse_json
from mora_runtime.files.shown_text import shown_line

from mora_data.clips import Clip, duration_s, read_clip, write_video
from mora_data.moving_shapes import made_clip
from mora_data.settings import ClipShape, DataSettings

_MAX_PROMPT_LENGTH = 2000
_MAX_PATH_LENGTH = 4096
_MAX_LINE_NBYTES = 64 << 10
_MAX_NUM_LINES = 1_000_000
_MAX_DEPTH = 4
_OLD_SEED = "image_seed"  # of data sets from before agents had names of any kind: the seed of the agent `image`


@dataclass(frozen=True)
class Sample:
    """One line of the dataset: a prompt and the place of its target clip."""

    prompt: str
    video: Path
    start_s: float = 0.0
    fps: float | None = None
    seeds: Mapping[str, int] = field(default_factory=dict)  # by agent, of what it made on the way to the target

    def clip(self, shape: ClipShape) -> Clip:
        """Decode the target clip: uint8 (frames, height, width, 3)."""
        return read_clip(self.video, shape, start_s=self.start_s, fps=self.fps)


def resolve_dataset(data: DataSettings, shape: ClipShape, folder: Path, agents: Collection[str]) -> Path:
    """Write the user's data as `folder/dataset.jsonl`, and decode every clip once as a check.

    Paths in it are absolute, except those of clips that Mora draws in `folder`.

    Args:
        agents: names of the agents that a sample may have seeds of.

    Raises:
        DatasetError: names the file and line, what was expected and what was found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if data.path is None:
        samples = _make_samples(data, shape, folder)
    elif Path(data.path).suffix in (".jsonl", ".json"):
        samples = read_dataset(Path(data.path), default_fps=data.fps)
    else:
        samples = _cut_video(Path(data.path), data, shape)
    _check_seeds(samples, agents, data.path or "the built-in clips")
    check_samples(samples, shape, data.path or "the built-in clips")
    target = folder / "dataset.jsonl"
    lines = [
        {
            "prompt": s.prompt,
            "video": _place(s.video, folder),
            "start_s": s.start_s,
            "fps": s.fps,
            "seeds": dict(s.seeds),
        }
        for s in samples
    ]
    replace_text(target, "".join(json.dumps(line) + "\n" for line in lines))
    return target


def _place(video: Path, folder: Path) -> str:
    """The path of a clip in the data set: relative if Mora drew it there, so that a run can be moved."""
    whole = video.resolve()
    return str(whole.relative_to(folder.resolve())) if whole.is_relative_to(folder.resolve()) else str(whole)


def _make_samples(data: DataSettings, shape: ClipShape, folder: Path) -> list[Sample]:
    samples = []
    for index in range(data.num_clips):
        prompt, clip = made_clip(index, shape, with_speed=data.with_speed)
        path = folder / "clips" / f"{index:03d}.mp4"
        write_video(path, clip, shape.fps)
        samples.append(Sample(prompt, path))
    return samples


def _cut_video(path: Path, data: DataSettings, shape: ClipShape) -> list[Sample]:
    if not path.is_file():
        raise DatasetError(f"data: no such file {path}; expected a .jsonl dataset or a video")
    fps = data.fps or shape.fps
    clip_s = shape.num_frames / fps
    last_s = duration_s(path) - clip_s - 1.0 / fps
    if last_s < 0:
        raise DatasetError(
            f"{path}: lasts {duration_s(path):.2f} s, expected at least {clip_s:.2f} s "
            f"for {shape.num_frames} frames at {fps} fps"
        )
    spacing_s = last_s / max(1, data.num_clips - 1)
    prompt = path.stem.replace("_", " ").replace("-", " ")
    return [Sample(prompt, path, round(index * spacing_s, 3), fps) for index in range(data.num_clips)]


def read_dataset(path: Path, *, default_fps: float | None = None) -> list[Sample]:
    """Read JSON lines `{"prompt": str, "video": path, "start_s"?: float, "fps"?: float, "seeds"?: {agent: int}}`;
    paths relative to the file.

    Raises:
        DatasetError: with the line number.
    """
    samples = [_parse_line(path, number, line, default_fps) for number, line in _lines(path)]
    if not samples:
        raise DatasetError(f"{path}: has no samples; expected one JSON object per line with `prompt` and `video`")
    return samples


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Non-blank lines with their numbers."""
    try:
        with open(open_foreign(path), "rb") as file:
            for number in itertools.count(1):
                line = file.readline(_MAX_LINE_NBYTES + 1)
                if not line:
                    return
                if len(line) > _MAX_LINE_NBYTES:
                    raise DatasetError(
                        f"{path}:{number}: expected at most {_MAX_LINE_NBYTES} bytes in a line, got more"
                    )
                if number > _MAX_NUM_LINES:
                    raise DatasetError(f"{path}: expected at most {_MAX_NUM_LINES} lines, got more")
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read as a dataset: {error.strerror}") from None


def _parse_line(path: Path, number: int, line: bytes, default_fps: float | None) -> Sample:
    where = f"{path}:{number}"
    try:
        entry: Any = parse_json(line.strip(), max_depth=_MAX_DEPTH)
    except ValueError as error:
        said = str(error)
        raise DatasetError(f"{where}: {said if said.startswith('is not JSON') else f'is not JSON: {said}'}") from None
    if not isinstance(entry, dict):
        raise DatasetError(f"{where}: expected an object with `prompt` and `video`, got {type(entry).__name__}")
    unknown = sorted(set(entry) - {"prompt", "video", "start_s", "fps", "seeds", _OLD_SEED})
    if unknown:
        raise DatasetError(
            f"{where}: unknown key `{shown_line(unknown[0], 60)}`; known are prompt, video, start_s, fps, seeds"
        )
    prompt, video = entry.get("prompt"), entry.get("video")
    if not isinstance(prompt, str) or not 0 < len(prompt.strip()) <= _MAX_PROMPT_LENGTH:
        raise DatasetError(f"{where}: `prompt` must be a text of 1 to {_MAX_PROMPT_LENGTH} characters")
    if not isinstance(video, str) or not 0 < len(video) <= _MAX_PATH_LENGTH or "\0" in video:
        raise DatasetError(f"{where}: `video` must be a path, got {_short(video)}")
    start_s, fps = _number(where, entry, "start_s"), _number(where, entry, "fps")
    return Sample(prompt, path.parent / video, start_s or 0.0, fps or default_fps, _seeds(where, entry))


def _number(where: str, entry: dict[str, Any], key: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise DatasetError(f"{where}: `{key}` must be a number >= 0, got {_short(value)}")
    return float(value)


def _seeds(where: str, entry: dict[str, Any]) -> dict[str, int]:
    seeds = entry.get("seeds") or {}
    if not isinstance(seeds, dict):
        raise DatasetError(f"{where}: `seeds` must be an object with a number for each agent, got {_short(seeds)}")
    if entry.get(_OLD_SEED) is not None:
        seeds = {"image": entry[_OLD_SEED], **seeds}
    for agent, value in seeds.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
            key = f"seeds.{shown_line(agent, 60)}" if agent in (entry.get("seeds") or {}) else _OLD_SEED
            raise DatasetError(f"{where}: `{key}` must be an integer from 0 to 2^63 - 1, got {_short(value)}")
    return seeds


def _check_seeds(samples: list[Sample], agents: Collection[str], source: str) -> None:
    for number, sample in enumerate(samples, start=1):
        unknown = sorted(set(sample.seeds) - set(agents))
        if unknown:
            raise DatasetError(
                f"{source}: sample {number}: `seeds` names the agent `{shown_line(unknown[0], 60)}`; the chain has "
                f"{', '.join(agents)}"
            )


def _short(value: Any) -> str:
    return shown_line(ascii(value), 60)


def check_samples(samples: list[Sample], shape: ClipShape, source: str) -> None:
    """Decode every sample once; raises the first failure with the sample's number."""

    def check(numbered: tuple[int, Sample]) -> None:
        number, sample = numbered
        try:
            sample.clip(shape)
        except DatasetError as error:
            raise DatasetError(f"{source}: sample {number}: {error}") from None

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(check, enumerate(samples, start=1)):
            pass


class SampleOrder:
    """Maps each place of the endless training sequence to a sample and a noise seed.

    A pure function of (seed, place), so the data cursor is one integer and a resumed run uses the same samples.
    """

    def __init__(self, num_samples: int, *, seed: int, shuffle: bool) -> None:
        self._num_samples = num_samples
        self._seed = seed
        self._shuffle = shuffle
        self._last_epoch: tuple[int, list[int]] | None = None  # number and order of the epoch that was asked for last

    def sample_index(self, place: int) -> int:
        """Index of the sample at `place`; every epoch has its own permutation."""
        epoch, position = divmod(place, self._num_samples)
        if not self._shuffle:
            return position
        if self._last_epoch is None or self._last_epoch[0] != epoch:
            order = list(range(self._num_samples))
            random.Random(f"{self._seed}/{epoch}").shuffle(order)
            self._last_epoch = (epoch, order)
        return self._last_epoch[1][position]

    def noise_seed(self, place: int) -> int:
        """Seed of all randomness of the sample at `place` (timestep, noise, posterior, first frame): 63 bits."""
        digest = hashlib.sha256(f"{self._seed}/noise/{place}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1
