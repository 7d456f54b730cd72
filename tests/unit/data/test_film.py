"""Videos are read as a player shows them: turned, with square pixels, at the time of their timestamps."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_files import Pixels, corners, greys, quad, turn, write_film
from mora_data.clips import duration_s, open_video, read_clip
from mora_data.reading.costs import Unlimited
from mora_data.reading.opening import opened_video
from mora_data.reading.timeline import ShownFrame, on_grid
from mora_data.settings import ClipShape
from mora_runtime.errors import DatasetError

LEVELS = range(0, 240, 4)  # of 60 frames, which tell their number


def all_frames(path: Path, start_s: float = 0.0) -> list[ShownFrame]:
    with open_video(path) as video:
        return list(video.frames(start_s))


def numbers(path: Path, start_s: float = 0.0) -> list[int]:
    """The number of each frame of a film of `LEVELS`."""
    return [round(float(frame.pixels().mean()) / 4) for frame in all_frames(path, start_s)]


TURNED = {
    "upright": ((1, 0, 0, 1), ["red", "green", "blue", "white"]),
    "90 clockwise": ((0, 1, -1, 0), ["blue", "red", "white", "green"]),
    "180": ((-1, 0, 0, -1), ["white", "blue", "green", "red"]),
    "270 clockwise": ((0, -1, 1, 0), ["green", "white", "red", "blue"]),
    "mirrored": ((-1, 0, 0, 1), ["green", "red", "white", "blue"]),
    "upside down": ((1, 0, 0, -1), ["blue", "white", "red", "green"]),
    "transposed": ((0, 1, 1, 0), ["red", "blue", "green", "white"]),
    "anti-transposed": ((0, -1, -1, 0), ["white", "green", "blue", "red"]),
}


@pytest.mark.parametrize("name", TURNED)
def test_a_display_matrix_turns_and_mirrors(tmp_path: Path, name: str) -> None:
    matrix, expected = TURNED[name]
    path = turn(write_film(tmp_path / "flat.mp4", [quad(96, 64)] * 12), tmp_path / "turned.mp4", matrix)
    frame = all_frames(path)[0]
    assert corners(frame.pixels()) == expected
    assert frame.size == ((64, 96) if matrix[0] else (96, 64))
    clip = read_clip(path, ClipShape(num_frames=9, height=32, width=32))
    assert corners(clip[0]) == expected, "of a training clip too"


def test_pixels_become_square(tmp_path: Path) -> None:
    path = write_film(tmp_path / "pal.mp4", [quad(72, 58)] * 3, aspect=Fraction(16, 15))
    assert all_frames(path)[0].pixels().shape == (58, 77, 3)
    turned = turn(path, tmp_path / "turned.mp4", (0, 1, -1, 0))
    assert all_frames(turned)[0].pixels().shape == (77, 58, 3), "the aspect is that of the frame before it is turned"


def test_uneven_frames_are_shown_at_their_times(tmp_path: Path) -> None:
    times_ms = [33 * n for n in range(30)] + [2000 + 33 * n for n in range(30)]
    path = write_film(tmp_path / "vfr.mp4", greys([80 * t // 1000 for t in times_ms]), times_ms=times_ms)
    frames = all_frames(path)
    assert [round(1000 * frame.time_s) for frame in frames] == times_ms
    shown = [float(frame.pixels().mean()) for frame in on_grid(frames, 0.0, 8.0)]
    assert len(shown) == 24
    assert abs(shown[12] - 77) < 3, "at 1.5 s the picture of 0.96 s is on screen"
    assert shown[15] < 80 < 155 < shown[16]
    clip = read_clip(path, ClipShape(num_frames=9, height=64, width=64), start_s=1.0, fps=8.0)
    assert np.allclose(clip.mean(axis=(1, 2, 3)), shown[8:17], atol=1.0), "a training clip agrees"


@pytest.mark.parametrize(
    ("name", "codec", "container_format"),
    [
        ("a.mp4", "libx264", None), ("a.mov", "libx264", None), ("a.mkv", "libx264", None),
        ("a.webm", "libvpx-vp9", None), ("a.avi", "mpeg4", None), ("a.ts", "libx264", None),
        ("a.mpg", "mpeg2video", None), ("a.m1v", "mpeg1video", "mpeg1video"), ("a.flv", "libx264", None),
        ("no-name", "libx264", "mp4"),
    ],
)  # fmt: skip
def test_containers(tmp_path: Path, name: str, codec: str, container_format: str | None) -> None:
    path = write_film(tmp_path / name, [quad(96, 64)] * 30, fps=25, codec=codec, container_format=container_format)
    frames = all_frames(path)
    assert len(frames) == 30
    assert all(abs(frame.time_s - n / 25) < 2e-3 for n, frame in enumerate(frames))
    assert corners(frames[-1].pixels()) == ["red", "green", "blue", "white"]
    assert abs(duration_s(path) - 1.2) < 0.1


def test_the_first_timestamp_is_time_zero(tmp_path: Path) -> None:
    late = write_film(tmp_path / "late.mkv", greys(LEVELS), times_ms=[7000 + 40 * n for n in range(60)])
    assert [round(1000 * frame.time_s) for frame in all_frames(late)] == [40 * n for n in range(60)]
    assert numbers(late, 1.0)[0] == 25


def test_an_edit_list_cuts(tmp_path: Path) -> None:
    path = write_film(tmp_path / "whole.mp4", greys(LEVELS), fps=25, options={"bf": "0"})
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12
    ticks = int.from_bytes(content[content.index(b"mdhd") + 16 :][:4], "big")  # a second
    content[at : at + 4] = (1600).to_bytes(4, "big")  # of 2400 ms, in thousandths
    content[at + 4 : at + 8] = (10 * ticks // 25).to_bytes(4, "big")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content)
    assert numbers(cut) == list(range(10, 50))
    assert all_frames(cut)[0].time_s == 0.0
    assert duration_s(cut) == pytest.approx(1.6, abs=0.05)


def test_a_live_recording_without_duration(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "live.webm", greys(LEVELS), codec="libvpx-vp9", fps=30, container_options={"live": "1"}
    )
    assert abs(duration_s(path) - 2.0) < 0.05
    assert numbers(path, 1.9)[0] == 57


class Counted(Unlimited):
    """Counts the packets that are decoded."""

    def __init__(self) -> None:
        self.num_packets = 0

    def count_packet(self) -> None:
        self.num_packets += 1


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "12"}), ("a.mp4", "libx264", {"x264-params": "keyint=12:open-gop=1:bframes=3"}),
        ("a.mkv", "libx264", {"g": "12"}), ("a.webm", "libvpx-vp9", {"g": "12"}), ("a.avi", "mpeg4", {"g": "12"}),
        ("a.ts", "libx264", {"g": "12"}), ("a.mpg", "mpeg2video", {"g": "12"}),
    ],
)  # fmt: skip
def test_a_seek_gives_the_frames_of_a_read_from_the_beginning(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    moving = [np.roll(quad(96, 64), 3 * n, axis=1) // 2 + n % 100 for n in range(300)]
    path = write_film(tmp_path / name, moving, fps=25, codec=codec, options=options)
    whole = all_frames(path)
    assert len(whole) == 300
    for start_s in (2.5, 4.04, 7.99, 11.9):
        found = list(itertools.islice(all_frames(path, start_s), 4))
        first = max(n for n, frame in enumerate(whole) if frame.time_s <= start_s + 1e-3)
        for mine, theirs in zip(found, whole[first : first + 4], strict=False):
            assert mine.time_s == pytest.approx(theirs.time_s, abs=2e-3)
            assert (mine.pixels() == theirs.pixels()).all()


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts"])
def test_the_cost_does_not_depend_on_where_a_clip_is(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name, greys([n % 200 for n in range(3000)], side=32), fps=25, options={"g": "50"})

    def cost(start_s: float) -> int:
        counted = Counted()
        with open(path, "rb") as file, opened_video(file, counted) as video:
            assert len(list(itertools.islice(video.frames(start_s), 9))) == 9
        return counted.num_packets

    assert cost(118.0) < 250, "of 3000 packets"
    assert cost(60.0) < 250


def test_a_cut_file_gives_what_can_be_decoded(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    frames = [np.roll(quad(96, 64), n, axis=0) // 2 + noise.integers(0, 99, (64, 96, 3), np.uint8) for n in range(60)]
    whole = write_film(tmp_path / "whole.mp4", frames, container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    with open_video(cut) as video:
        found = list(video.frames())
        assert 9 < len(found) < 60
        assert video.fault.startswith(f"breaks off after frame {len(found)}")
    shape = ClipShape(num_frames=9, height=64, width=96)
    assert (read_clip(cut, shape) == read_clip(whole, shape)).all()
    with pytest.raises(DatasetError, match=rf"expected 59 frames from 0.00 s on, got {len(found)} \(breaks off after"):
        read_clip(cut, ClipShape(num_frames=59, height=64, width=96))


def test_a_cut_file_without_a_broken_packet_tells_where_it_ends(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    frames = [noise.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(160)]
    whole = write_film(tmp_path / "whole.mkv", frames, fps=16)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 4])
    for path, is_whole in ((whole, True), (cut, False)):
        with open_video(path) as video:
            found = list(video.frames())
            assert (len(found) == 160) == is_whole
            assert (video.fault == "") == is_whole
    assert video.fault.endswith(" of 10.00 s")


def test_interlaced_frames_are_made_whole(tmp_path: Path) -> None:
    def woven(n: int) -> Pixels:
        """A white bar on black that has moved on between the two fields."""
        frame = np.zeros((64, 288, 3), np.uint8)
        frame[0::2, 20 + 20 * n : 60 + 20 * n] = 255
        frame[1::2, 30 + 20 * n : 70 + 20 * n] = 255
        return frame

    options = {"flags": "+ilme+ildct", "x264-params": "tff=1"}
    path = write_film(tmp_path / "tv.ts", [woven(n) for n in range(10)], fps=25, options=options)
    frames = all_frames(path)
    assert len(frames) == 10
    coded, shown = woven(5)[..., 1].astype(int), frames[5].pixels()[..., 1].astype(int)
    combing = [np.abs(lines[10:-10:2] - lines[11:-9:2]).mean() for lines in (coded, shown)]
    assert combing[0] > 15
    assert combing[1] < 2, "neighbouring lines show the same moment"


def test_sound_is_noticed(tmp_path: Path) -> None:
    with open_video(write_film(tmp_path / "talk.mp4", greys(LEVELS), sound_s=2.0)) as video:
        assert video.has_sound
    with open_video(write_film(tmp_path / "mute.mp4", greys(LEVELS))) as video:
        assert not video.has_sound
