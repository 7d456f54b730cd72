"""What a clip costs by where it is in a long film: `./mora bench seeking [--minutes N] [--json FILE]`.

Makes a film of an hour in each container, and reads a clip at its beginning, in its middle and at its end, in turns.
A figure is the least time of a place, as a ratio to decoding the film's first two seconds from the beginning: what one
group of pictures costs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from mora_data.clips import open_video, read_clip
from mora_data.settings import ClipShape

from benchmarks.figures import add_json_option, publish

_SHAPE = ClipShape(num_frames=9, height=64, width=64)
_FPS = 25
_GROUP_S = 2.0
_CONTAINERS = ("mp4", "mkv", "ts")
_NUM_ROUNDS = 7


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the films; default: 60")
    add_json_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mora-seeking-") as folder:
        figures = {kind: _measured(Path(folder) / f"film.{kind}", arguments.minutes * 60) for kind in _CONTAINERS}
    publish({"minutes": arguments.minutes, "ratios": figures}, arguments.json)


def _measured(path: Path, seconds: float) -> dict[str, float]:
    _write_film(path, seconds)
    places = {"beginning": 0.0, "middle": seconds / 2 + 1.3, "end": seconds - _GROUP_S}
    calls: dict[str, Callable[[], object]] = {
        name: partial(read_clip, path, _SHAPE, start_s=at_s, fps=8.0) for name, at_s in places.items()
    }
    calls["group"] = partial(_decode_a_group, path)
    times_s = _least_times_s(calls)
    return {name: round(times_s[name] / times_s["group"], 2) for name in places}


def _least_times_s(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The least of several times of each call; the calls take turns."""
    times_s: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_NUM_ROUNDS):
        for name, call in calls.items():
            began_s = time.perf_counter()
            call()
            times_s[name].append(time.perf_counter() - began_s)
    return {name: min(each) for name, each in times_s.items()}


def _decode_a_group(path: Path) -> None:
    with open_video(path) as video:
        for frame in video.frames():
            frame.pixels((_SHAPE.height, _SHAPE.width))
            if frame.time_s >= _GROUP_S:
                return


def _write_film(path: Path, seconds: float) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(_FPS))
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.options = {"g": str(round(_GROUP_S * _FPS)), "preset": "ultrafast"}
        row = np.arange(320, dtype=np.uint8) % 200
        for number in range(round(seconds * _FPS)):
            pixels = np.broadcast_to(np.roll(row, number)[None, :, None], (180, 320, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
