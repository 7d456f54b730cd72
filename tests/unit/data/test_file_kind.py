"""A file is told by its bytes, and what cannot be read is refused under its own name."""

from __future__ import annotations

import io
import os
import struct

import numpy as np
import pytest
from made_files import greys, quad
from mora_data.reading.animation import Animation
from mora_data.reading.file_kind import kind_of
from mora_data.reading.opening import opened_video
from mora_data.reading.picture import decoded_picture
from mora_data.reading.unreadable import Unreadable
from PIL import Image

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + os.urandom(4096)
FILES = {
    "a HEIC picture": HEIC,
    "a HEIF picture": b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf" + bytes(99),
    "a JPEG XL picture": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99),
    "a BMP picture": b"BM" + bytes(99),
    "an SVG picture": b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    "an HTML page": b"\xef\xbb\xbf\n<!DOCTYPE HTML><title>404</title>",
    "an empty file": b"",
    "a text file": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a PDF file": b"%PDF-1.7\n\0",
    "an MP3 sound file": b"ID3\4" + bytes(99),
    "a WAV sound file": b"RIFF\0\0\0\0WAVEfmt " + bytes(99),
    "an M4A sound file": b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42" + bytes(99),
    "of no known kind": bytes(range(256)),
}


@pytest.mark.parametrize("name", FILES)
def test_what_cannot_be_read_is_refused_under_its_name(name: str) -> None:
    assert str(kind_of(FILES[name])) == name
    with pytest.raises(Unreadable, match=f"is {name}; expected an mp4, mov, mkv"):
        opened_video(io.BytesIO(FILES[name]))
    with pytest.raises(Unreadable, match=f"is {name}; expected a PNG, JPEG, WebP"):
        decoded_picture(FILES[name])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_pictures_are_told_from_videos(kind: str) -> None:
    sink = io.BytesIO()
    Image.fromarray(quad(64, 48)).save(sink, kind)
    found = kind_of(sink.getvalue())
    assert (found.media, found.decoder) == ("picture", kind)
    with pytest.raises(Unreadable, match="picture; expected an mp4"):
        opened_video(sink)


@pytest.mark.parametrize("brand", [b"isom", b"mp42", b"qt  ", b"avc1", b"M4V ", b"iso5"])
def test_brands_of_videos(brand: bytes) -> None:
    assert kind_of(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0isomavif").media == "video"


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "GIF"])
def test_animated_pictures_are_videos(kind: str) -> None:
    first, *rest = [Image.fromarray(frame) for frame in greys([0, 50, 100, 150, 200])]
    sink = io.BytesIO()
    first.save(sink, kind, save_all=True, append_images=rest, duration=[100, 50, 200, 100, 100])
    with opened_video(sink) as video:
        assert isinstance(video, Animation) == (kind != "GIF")
        frames = list(video.frames())
        assert [round(frame.time_s, 3) for frame in frames] == [0.0, 0.1, 0.15, 0.35, 0.45]
        assert [round(float(frame.pixels().mean()) / 50) for frame in frames] == [0, 1, 2, 3, 4]
        assert video.duration_s == pytest.approx(0.55)
        assert video.rate == pytest.approx(5 / 0.55)
        assert [round(float(frame.pixels().mean()) / 50) for frame in video.frames(0.4)] == [3, 4]


def test_a_cut_animation_gives_what_can_be_decoded() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), np.uint8)
    first, *rest = [Image.fromarray(frame) for frame in noise]
    sink = io.BytesIO()
    first.save(sink, "WEBP", save_all=True, append_images=rest, duration=100, lossless=True)
    content = sink.getvalue()
    with pytest.raises(Unreadable, match="cannot be decoded"), opened_video(io.BytesIO(content[:200])) as video:
        next(video.frames())


def claimed_gif(side: int, num_frames: int) -> bytes:
    """Frames of one pixel on a large canvas: 26 bytes each."""
    frame = b"\x21\xf9\x04\0\x0a\0\0\0" + b"\x2c\0\0\0\0\1\0\1\0\0" + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + b"\0" * 6 + frame * num_frames + b";"


@pytest.mark.parametrize(
    ("side", "num_frames", "said"),
    [(4000, 2000, "pixels in all frames of an animated picture"), (2, 30_000, "20000 frames of an animated picture")],
)
def test_an_animation_that_claims_too_much_is_refused(side: int, num_frames: int, said: str) -> None:
    with (
        pytest.raises(Unreadable, match=said),
        opened_video(io.BytesIO(claimed_gif(side, num_frames))) as video,
    ):
        for _ in video.frames():
            pass
