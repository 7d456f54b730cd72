"""A data set as a folder: videos with captions next to them, or a metadata file (Hugging Face's videofolder)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mora_runtime.errors import DatasetError
from mora_runtime.files.foreign_file import open_foreign, read_foreign

from mora_data.entry import checked_prompt
from mora_data.faults import Fault
from mora_data.reading.file_kind import HEAD_NBYTES, kind_of
from mora_data.sample import Sample

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.tsv")
_CAPTIONS = (".txt", ".caption")
_VIDEOS = frozenset((
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".f4v", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
    ".mpe", ".m1v", ".m2v", ".vob", ".flv", ".ogv", ".wmv", ".gif",
))  # fmt: skip
_PICTURES_THAT_MOVE = (".webp", ".avif")  # a video only if the file is animated
_MAX_CAPTION_NBYTES = 64 << 10
_MAX_NUM_FILES = 1_000_000


def read_captions(folder: Path, default_fps: float | None) -> Iterator[Sample | Fault]:
    """Yield a sample for each video of the folder, by name, and a fault for each without a caption.

    The caption of `a.mp4` is the text of `a.txt` or `a.caption`; its lines are joined.

    Raises:
        DatasetError: there are no videos.
    """
    videos = [path for path in _files(folder) if _is_video(path)]
    if not videos:
        raise DatasetError(
            f"{folder}: is a folder without videos; expected videos with captions next to them (a.mp4 and a.txt), or "
            f"{' or '.join(METADATA)}"
        )
    for number, video in enumerate(videos, 1):
        try:
            caption = _caption(video)
        except ValueError as error:
            yield Fault(number, video.name, str(error), str(video))
        else:
            yield Sample(caption, video, 0.0, default_fps, where=str(video), line=number, named=video.name)


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in _PICTURES_THAT_MOVE:
        return suffix in _VIDEOS
    try:
        with open(open_foreign(path), "rb") as file:
            return kind_of(file.read(HEAD_NBYTES)).media == "video"
    except OSError:
        return False


def _files(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read as a dataset: {error.strerror}") from None
    if len(files) > _MAX_NUM_FILES:
        raise DatasetError(f"{folder}: expected at most {_MAX_NUM_FILES} files, got more")
    return files


def _caption(video: Path) -> str:
    file = next((file for suffix in _CAPTIONS if (file := video.with_suffix(suffix)).exists()), None)
    if file is None:
        raise ValueError(f"has no caption; expected {video.stem}.txt next to it")
    try:
        text = read_foreign(file, _MAX_CAPTION_NBYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"its caption {file.name} cannot be read: {error}") from None
    caption = " ".join(text.split())
    if not caption:
        raise ValueError(f"its caption {file.name} is empty")
    return checked_prompt(caption)
