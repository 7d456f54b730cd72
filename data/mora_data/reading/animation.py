"""An animated picture that Pillow decodes as a video. FFmpeg cannot decode animated WebP."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from mora_data.reading.colour import over_white
from mora_data.reading.costs import Costs
from mora_data.reading.file_kind import FileKind
from mora_data.reading.timeline import ShownFrame, from_time
from mora_data.reading.unreadable import Unreadable

_LEAST_DURATION_S = 0.1  # of a frame that gives none or nearly none, as browsers show it
_SHORTEST_S = 0.011


class Animation:
    """An animated picture, open for reading. Attributes as those of `Film`."""

    has_sound = False

    def __init__(self, file: BinaryIO, kind: FileKind, costs: Costs) -> None:
        """Raises: Unreadable: the file is broken."""
        file.seek(0)
        self.fault = ""
        self._costs = costs
        self._found_s: list[float] = []  # duration of each frame, after all were decoded once
        try:
            self._image = Image.open(file, formats=(kind.decoder,))
            self._num_frames = int(getattr(self._image, "n_frames", 1))
        except UnidentifiedImageError:
            raise Unreadable(f"is no whole {kind.name}") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise Unreadable(f"cannot be decoded ({error})") from None

    def __enter__(self) -> Animation:
        return self

    def __exit__(self, *_: object) -> None:
        self._image.close()

    @property
    def rate(self) -> float:
        """Average frames per second, which takes decoding every frame once."""
        return len(self._durations_s()) / self.duration_s

    @property
    def duration_s(self) -> float:
        """Length in seconds, which takes decoding every frame once."""
        return sum(self._durations_s())

    def _durations_s(self) -> list[float]:
        if not self._found_s:
            self._found_s = [frame.duration_s for frame in self._all()]
        return self._found_s

    def frames(self, start_s: float = 0.0) -> Iterator[ShownFrame]:
        """As `Film.frames`; the frames before the time are decoded too, because each changes the one before it."""
        yield from from_time(self._all(), start_s)

    def _all(self) -> Iterator[ShownFrame]:
        time_s, size = 0.0, (self._image.height, self._image.width)
        self._costs.expect(self._num_frames, self._image.width, self._image.height)
        found_s: list[float] = []
        for number in range(self._num_frames):
            self._costs.count_packet()
            try:
                self._image.seek(number)
                rgba = np.asarray(self._image.convert("RGBA"), dtype=np.uint8)
            except (OSError, ValueError, SyntaxError, EOFError) as error:
                if number == 0:
                    raise Unreadable(f"cannot be decoded ({error})") from None
                self.fault = f"breaks off after frame {number} ({error})"
                break
            self._costs.count_frame(size[1], size[0])
            duration_s = float(self._image.info.get("duration", 0)) / 1000.0
            duration_s = duration_s if duration_s >= _SHORTEST_S else _LEAST_DURATION_S
            yield ShownFrame(time_s, duration_s, size, functools.partial(over_white, rgba))
            time_s += duration_s
            found_s.append(duration_s)
        self._found_s = found_s
