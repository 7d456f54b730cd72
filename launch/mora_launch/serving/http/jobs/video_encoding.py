"""Encodes the video of a job in a thread, while later frames are still made."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mora_data.reading.fitting import Clip, fitted
from mora_data.video_writer import VideoWriter
from mora_runtime.errors import Cancelled

from mora_launch.serving.http.jobs.growing_file import GrowingFile
from mora_launch.tasks.media import chosen_codec, comment_of, encode
from mora_launch.telemetry import spans


def partial_of(path: Path) -> Path:
    """Return the path of a result while it is written."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


class _Writer(AbstractContextManager[Any], Protocol):
    def write(self, clip: Clip) -> None:
        """Append frames."""


class VideoEncoding:
    """A context manager: frames are appended, and the file is whole when it is left without an error.

    Args:
        path: the file; it appears when it is whole.
        size: (height, width) to which frames are scaled.
        kind: its format.
        codec: its codec; None for the format's own.
        live: also gets the frames, as an mp4 that can be watched while it grows; None without viewers. It is removed
            at the end.
        is_cancelled: polled before each frame.

    Attributes:
        spent_ns: time of encoding, without waiting for frames; of a whole file.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], fps: float, kind: str, codec: str | None, metadata: dict[str, Any], *,
        live: GrowingFile | None, is_cancelled: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.num_frames = 0
        self._num_early = 0  # of the next piece, that are appended already
        self._size = size
        self._path = path
        self._partial = partial_of(path)
        self._fps = fps
        self._kind = kind
        self._codec = codec
        self._metadata = metadata
        self._live = live
        self._is_cancelled = is_cancelled
        self._pieces: queue.SimpleQueue[Clip | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._span = spans.current.get()
        self._waited_ns = 0
        self.spent_ns = 0
        self._is_given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"encodes {path.name}", daemon=True)

    def append(self, clip: Clip) -> None:
        """Append frames, uint8 (frames, height, width, 3). Raises: the error of the encoder, if it has failed."""
        if self._error is not None:
            raise self._error
        self.num_frames += len(clip)
        self._pieces.put(clip[self._num_early :])
        self._num_early = 0

    def append_early(self, clip: Clip) -> None:
        """Append the next frames of the piece that the next `append` gets whole; in any thread, one after the other."""
        self._num_early += len(clip)
        self._pieces.put(clip)

    def __enter__(self) -> VideoEncoding:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._is_given_up.set()
        self._pieces.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        begun_ns = time.monotonic_ns()
        try:
            self._encode()
            self._partial.replace(self._path)
            ended_ns = time.monotonic_ns()
            self.spent_ns = ended_ns - begun_ns - self._waited_ns
            spans.past("encode", self._span, begun_ns, ended_ns, {"mora.spent_s": self.spent_ns / 1e9})
        except BaseException as error:  # the thread of the job raises it
            self._error = error
        finally:
            self._partial.unlink(missing_ok=True)
            if self._live is not None:
                self._live.end(is_whole=self._error is None)
                self._live.path.unlink(missing_ok=True)

    def _encode(self) -> None:
        with ExitStack() as files:
            live: _Writer | None = None
            writer: _Writer | None = None
            for arrived in self._arrived():
                piece = fitted(arrived, *self._size)
                if self._live is not None:
                    live = live or files.enter_context(self._live_writer(self._live))
                    self._write(live, piece)
                    self._live.grown()
                writer = writer or files.enter_context(self._writer())
                self._write(writer, piece)

    def _write(self, writer: _Writer, piece: Clip) -> None:
        for number in range(len(piece)):
            self._check()
            writer.write(piece[number : number + 1])

    def _arrived(self) -> Iterator[Clip]:
        while (piece := self._next_piece()) is not None:
            if len(piece):
                yield piece
        self._check()

    def _next_piece(self) -> Clip | None:
        asked_ns = time.monotonic_ns()
        piece = self._pieces.get()
        self._waited_ns += time.monotonic_ns() - asked_ns
        return piece

    def _check(self) -> None:
        if self._is_given_up.is_set() or self._is_cancelled():
            raise Cancelled("the task was cancelled")

    def _live_writer(self, live: GrowingFile) -> _Writer:
        return VideoWriter(live.path, self._size, self._fps, is_live=True)

    def _writer(self) -> _Writer:
        codec = chosen_codec(self._kind, self._codec)
        if codec is None:
            return _WholeWriter(lambda clip: encode(clip, self._fps, self._kind, self._metadata), self._partial)
        comment = comment_of(self._metadata)
        return VideoWriter(self._partial, self._size, self._fps, codec=codec, comment=comment)


class _WholeWriter:
    """Encodes all frames at the end, for formats that need them all.

    Args:
        encode: gives the content of the file.
    """

    def __init__(self, encode: Callable[[Clip], bytes], path: Path) -> None:
        self._encode = encode
        self._path = path
        self._pieces: list[Clip] = []

    def write(self, clip: Clip) -> None:
        """Append frames."""
        self._pieces.append(clip)

    def __enter__(self) -> _WholeWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._path.write_bytes(self._encode(np.concatenate(self._pieces)))
