"""Reads a data set as training would: every sample and every fault in one go."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mora_runtime.errors import DatasetError
from mora_runtime.files.foreign_file import open_foreign

from mora_data.checking.extracted_frames import write_frames, write_picture
from mora_data.checking.found_sample import FoundSample
from mora_data.clips import open_video
from mora_data.contact_sheet import evenly_spread
from mora_data.dataset import found_samples, is_list_file, num_decoders, told_fault
from mora_data.faults import Fault
from mora_data.reading.file_kind import HEAD_NBYTES, PICTURES, VIDEOS, FileKind, kind_of
from mora_data.reading.fitting import Clip
from mora_data.reading.picture import read_picture_file
from mora_data.reading.unreadable import Unreadable
from mora_data.sample import Sample
from mora_data.settings import ClipShape, DataSettings

MAX_NUM_DRAWN = 100  # samples of the sheet, a row each
NUM_COLUMNS = 6


@dataclass(frozen=True)
class CheckedData:
    """What a check found, in the order of lines.

    Attributes:
        drawn: for a sheet, label and frames of the first samples, as training reads them.
    """

    samples: Sequence[FoundSample]
    faults: Sequence[Fault]
    drawn: Sequence[tuple[str, Clip]]


def check_data(data: DataSettings, shape: ClipShape, frames: Path | None = None) -> CheckedData:
    """Decode every clip once, and find out how its video is shown.

    Args:
        data: with `path` also one video, or one picture.
        frames: folder for the frames of every line that can be decoded, also where training needs more of them.

    Raises:
        DatasetError: there is no such data, or no sample in it.
    """
    path = None if data.path is None else Path(data.path).expanduser()
    if path is not None and path.is_file() and not is_list_file(path):
        kind = _kind(path)
        if kind.media == "picture":
            return _checked_picture(path, frames)
        if kind.media is None:
            text = f"is {kind}; expected a {PICTURES}, or an {VIDEOS}"
            return CheckedData([], [Fault(1, path.name, text, str(path))], [])
    with tempfile.TemporaryDirectory(prefix="mora-data-") as folder:
        samples, faults = _found(data, shape, Path(folder))
        with ThreadPoolExecutor(num_decoders()) as pool:
            seen = list(pool.map(lambda item: _seen(item[1], shape, keeps=item[0] < MAX_NUM_DRAWN), enumerate(samples)))
        if frames is not None:
            for sample in {sample.line: sample for sample in reversed(samples)}.values():
                with contextlib.suppress(DatasetError):  # it is among the faults
                    write_frames(sample, frames)
        good = [(sample, each) for sample, each in zip(samples, seen, strict=True) if not isinstance(each, Fault)]
        shown = _grouped([sample for sample, _ in good])
    faults += [each for each in seen if isinstance(each, Fault)]
    drawn = [(f"{sample.video.name}: {sample.prompt}", each) for sample, each in good if len(each)]
    return CheckedData(
        shown,
        sorted(dict.fromkeys(faults), key=lambda each: each.line),
        drawn,
    )


def _found(data: DataSettings, shape: ClipShape, folder: Path) -> tuple[list[Sample], list[Fault]]:
    """The samples; of one video that is too short to be cut, the whole video as a sample that fails."""
    try:
        return found_samples(data, shape, folder)
    except DatasetError:
        path = None if data.path is None else Path(data.path).expanduser()
        if path is None or not path.is_file() or is_list_file(path):
            raise
        return [Sample(path.stem, path, fps=data.fps or shape.fps, where=str(path), named=path.name)], []


def _seen(sample: Sample, shape: ClipShape, *, keeps: bool) -> Clip | Fault:
    """Decode a sample once; return frames of it to draw, or none."""
    try:
        clip = sample.clip(shape)
    except DatasetError as error:
        return told_fault(sample, error)
    # copied, so that the clip itself is freed
    return clip[evenly_spread(len(clip), NUM_COLUMNS)] if keeps else clip[:0].copy()


def _grouped(samples: Sequence[Sample]) -> list[FoundSample]:
    """One entry a line, with all its prompts."""
    lines: dict[int, FoundSample] = {}
    for sample in samples:
        if sample.line not in lines:
            lines[sample.line] = _shown(sample)
        prompts = lines[sample.line].prompts
        if sample.prompt not in prompts:
            prompts.append(sample.prompt)
    return list(lines.values())


def _shown(sample: Sample) -> FoundSample:
    """How a sample's video is shown."""
    with open_video(sample.video) as video:
        height, width = next(video.frames(sample.start_s)).size
        named = sample.named or str(sample.video)
        return FoundSample(sample.line, named, [], width, height, video.rate, video.duration_s)


def _kind(path: Path) -> FileKind:
    try:
        with open(open_foreign(path), "rb") as file:
            return kind_of(file.read(HEAD_NBYTES))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None


def _checked_picture(path: Path, frames: Path | None) -> CheckedData:
    try:
        with open(open_foreign(path), "rb") as file:
            picture = read_picture_file(file)
    except Unreadable as error:
        return CheckedData([], [Fault(1, path.name, str(error), str(path))], [])
    if frames is not None:
        write_picture(picture, frames)
    height, width = picture.shape[:2]
    return CheckedData([FoundSample(1, path.name, [], width, height, 0.0, 0.0)], [], [(path.name, np.stack([picture]))])
