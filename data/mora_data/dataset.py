"""Training samples: read from the user's files, cut from one video, or drawn.

The launcher resolves the user's data to a JSON-lines file in the run directory and checks every line by decoding its
clip; the coordinator reads that file. Needs no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mora_runtime.errors import DatasetError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.files.shown_text import shown_line

from mora_data.captioned_folder import METADATA, read_captions
from mora_data.clips import duration_s
from mora_data.faults import Fault, Tell, refuse, tell_left_out
from mora_data.lines_file import read_lines
from mora_data.moving_shapes import made_clip
from mora_data.sample import Sample
from mora_data.settings import ClipShape, DataSettings
from mora_data.table_file import SUFFIXES as TABLES
from mora_data.table_file import read_table
from mora_data.video_writer import write_video

_MAX_DRAWN_NBYTES = 2 << 30  # of one clip
_LINES = (".jsonl", ".json", ".ndjson")


def resolve_dataset(
    data: DataSettings, shape: ClipShape, folder: Path, agents: Collection[str], *, tell: Tell = print
) -> Path:
    """Write the user's data as `folder/dataset.jsonl`, and decode every clip once as a check.

    Paths in it are absolute, except those of clips that Mora draws in `folder`.

    Args:
        agents: names of the agents that a sample may have seeds of.
        tell: receives what is left out with `data.skip_bad`.

    Raises:
        DatasetError: names every file and line that is wrong, what was expected and what was found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = data.path or "the built-in clips"
    samples, faults = found_samples(data, shape, folder)
    _check_seeds(samples, agents, source)
    samples, undecodable = _decodable(samples, shape)
    faults += undecodable
    if data.skip_bad:
        tell_left_out(faults, len(samples), source=source, tell=tell)
    else:
        refuse(faults, source=source, can_skip=True)
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


def found_samples(data: DataSettings, shape: ClipShape, folder: Path) -> tuple[list[Sample], list[Fault]]:
    """Return the samples of the user's data, and the faults of those that cannot be read; no clip is decoded.

    Args:
        folder: for clips that Mora draws.

    Raises:
        DatasetError: there is no such data, or none in it.
    """
    if data.path is None:
        return _make_samples(data, shape, folder), []
    path = Path(os.path.expanduser(data.path))
    if path.is_dir():
        named = next((path / name for name in METADATA if (path / name).is_file()), None)
        if named is None:
            return _divided(read_captions(path, data.fps), path)
        path = named
    suffix = path.suffix.lower()
    if suffix in _LINES:
        return _divided(read_lines(path, data.fps), path)
    if suffix in TABLES:
        return _divided(read_table(path, data.fps), path)
    return _cut_video(path, data, shape), []


def is_list_file(path: Path) -> bool:
    """Whether a file lists samples, by its name; other files are videos."""
    return path.suffix.lower() in (*_LINES, *TABLES)


def _divided(found: Iterable[Sample | Fault], path: Path) -> tuple[list[Sample], list[Fault]]:
    """Samples and faults."""
    samples: list[Sample] = []
    faults: list[Fault] = []
    for each in found:
        if isinstance(each, Sample):
            samples.append(each)
        else:
            faults.append(each)
    if not samples and not faults:
        raise DatasetError(f"{path}: has no samples; expected one JSON object per line with `prompt` and `video`")
    return samples, faults


def _place(video: Path, folder: Path) -> str:
    """The path of a clip in the data set: relative if Mora drew it there, so that a run can be moved."""
    whole = video.resolve()
    return str(whole.relative_to(folder.resolve())) if whole.is_relative_to(folder.resolve()) else str(whole)


def _make_samples(data: DataSettings, shape: ClipShape, folder: Path) -> list[Sample]:
    nbytes = 3 * shape.num_frames * shape.height * shape.width
    if nbytes > _MAX_DRAWN_NBYTES:
        raise DatasetError(
            f"a drawn clip of {shape.num_frames} frames of {shape.width}x{shape.height} has {nbytes} bytes, expected "
            f"at most {_MAX_DRAWN_NBYTES}; make it smaller, or give data"
        )
    samples = []
    for index in range(data.num_clips):
        prompt, clip = made_clip(index, shape, with_speed=data.with_speed)
        path = folder / "clips" / f"{index:03d}.mp4"
        write_video(path, clip, shape.fps)
        samples.append(Sample(prompt, path, where=f"drawn clip {index}"))
    return samples


def _cut_video(path: Path, data: DataSettings, shape: ClipShape) -> list[Sample]:
    if not path.is_file():
        raise DatasetError(
            f"data: no such file {path}; expected a video, a folder of videos with captions, or a .jsonl, .csv or .tsv "
            "file"
        )
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
    starts_s = [round(index * spacing_s, 3) for index in range(data.num_clips)]
    return [Sample(prompt, path, at_s, fps, where=str(path), named=path.name) for at_s in starts_s]


def read_dataset(path: Path, *, default_fps: float | None = None) -> list[Sample]:
    """Read JSON lines `{"prompt": str, "video": path, "start_s"?: float, "fps"?: float, "seeds"?: {agent: int}}`;
    paths relative to the file.

    Raises:
        DatasetError: names every line that is wrong.
    """
    samples, faults = _divided(read_lines(path, default_fps), path)
    refuse(faults, source=str(path))
    return samples


def _check_seeds(samples: Sequence[Sample], agents: Collection[str], source: str) -> None:
    for sample in samples:
        unknown = sorted(set(sample.seeds) - set(agents))
        if unknown:
            raise DatasetError(
                f"{sample.where or source}: `seeds` names the agent `{shown_line(unknown[0], 60)}`; the chain has "
                f"{', '.join(agents)}"
            )


def check_samples(samples: Sequence[Sample], shape: ClipShape, source: str) -> None:
    """Decode every sample once.

    Raises:
        DatasetError: names every sample that cannot be decoded.
    """
    _, faults = _decodable(samples, shape)
    refuse(faults, source=source)


def _decodable(samples: Sequence[Sample], shape: ClipShape) -> tuple[list[Sample], list[Fault]]:
    """The samples that can be decoded, and the faults of the others. Several captions of a clip decode it once."""
    clips = {_clip_of(sample): sample for sample in reversed(samples)}
    with ThreadPoolExecutor(num_decoders()) as pool:
        errors = dict(zip(clips, pool.map(lambda sample: _error_of(sample, shape), clips.values()), strict=True))
    good, faults = [], []
    for sample in samples:
        error = errors[_clip_of(sample)]
        if error is None:
            good.append(sample)
        else:
            faults.append(told_fault(sample, error))
    return good, list(dict.fromkeys(faults))


def _clip_of(sample: Sample) -> tuple[Path, float, float | None]:
    return sample.video, sample.start_s, sample.fps


def num_decoders() -> int:
    """Clips that are decoded at once: one a core, because each can need the memory of large frames."""
    return len(os.sched_getaffinity(0))


def _error_of(sample: Sample, shape: ClipShape) -> DatasetError | None:
    """Decode a sample once; return what is wrong with it, or None."""
    try:
        sample.clip(shape)
    except DatasetError as error:
        return error
    return None


def told_fault(sample: Sample, error: DatasetError) -> Fault:
    """The fault of a sample that cannot be decoded."""
    return Fault(sample.line, sample.named, str(error).removeprefix(f"{sample.video}: "), sample.where)
