"""Videos and pictures with all the traps of real ones."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quad(width: int, height: int) -> Pixels:
    """Red and green over blue and white: tells how a frame is turned."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2], frame[: height // 2, width // 2 :] = RED, GREEN
    frame[height // 2 :, : width // 2], frame[height // 2 :, width // 2 :] = BLUE, WHITE
    return frame


def corners(frame: Pixels) -> list[str]:
    """Names of the colours at top left, top right, bottom left and bottom right."""
    names = {"red": RED, "green": GREEN, "blue": BLUE, "white": WHITE}
    places = ((3, 3), (3, -4), (-4, 3), (-4, -4))
    return [min(names, key=lambda name: int(np.abs(frame[y, x].astype(int) - names[name]).sum())) for y, x in places]


def greys(levels: Sequence[int], side: int = 64) -> list[Pixels]:
    """Plain grey frames."""
    return [np.full((side, side, 3), level, np.uint8) for level in levels]


def write_film(
    path: Path, frames: Sequence[Pixels], *, fps: int = 30, codec: str = "libx264", pix_fmt: str = "yuv420p",
    times_ms: Sequence[int] | None = None, options: dict[str, str] | None = None, container_format: str | None = None,
    container_options: dict[str, str] | None = None, tags: dict[str, int] | None = None, aspect: Fraction | None = None,
    sound_s: float = 0.0, source_format: str = "rgb24",
) -> Path:  # fmt: skip
    """Write a video by FFmpeg alone, without the code under test."""
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = pix_fmt, options or {}
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound: Any = container.add_stream("aac", rate=48000) if sound_s else None
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=source_format)
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            tone = np.int16(8000 * np.sin(np.arange(int(48000 * sound_s)) / 20))[None]
            audio = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            audio.sample_rate = 48000
            container.mux(sound.encode(audio))
            container.mux(sound.encode(None))
    return path


def turn(path: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Copy an mp4 with another matrix (a, b, c, d) in its track: x' = a x + c y, y' = b x + d y."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4
    a, b, c, d = (value << 16 for value in matrix)
    content[at + 40 : at + 76] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target
