"""Colours of videos become those that a player shows."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from made_files import write_film
from mora_data.clips import open_video
from mora_data.reading.colour import over_white, to_rgb
from mora_data.video_writer import write_lossless, write_video

# Y, U, V of one colour in limited range, and what ITU-R BT.709 and BT.601 make of it
YUV = (120, 90, 160)


def plain(yuv: tuple[int, int, int], pix_fmt: str, side: int = 64) -> av.VideoFrame:
    """A frame of one colour, given by its coded values."""
    frame = av.VideoFrame(side, side, pix_fmt)
    dtype = np.uint16 if "10" in pix_fmt else np.uint8
    for plane, value in zip(frame.planes, yuv, strict=True):
        plane.update(np.full(plane.buffer_size // dtype().itemsize, value, dtype).tobytes())
    return frame


def formula(yuv: tuple[float, float, float], red: float, blue: float, *, is_full: bool = False) -> list[int]:
    """RGB of 8-bit Y, U, V by the coefficients of red and blue."""
    y, u, v = (yuv[0] - 0, yuv[1] - 128, yuv[2] - 128)
    y, u, v = (y, u, v) if is_full else ((y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224)
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return [round(min(255.0, max(0.0, each))) for each in (r, g, b)]


BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)


def close(pixels: npt.NDArray[np.uint8], expected: list[int], most: int = 2) -> bool:
    return bool(np.abs(pixels[20, 20].astype(int) - expected).max() <= most)


@pytest.mark.parametrize(("matrix", "coefficients"), [(Colorspace.ITU709, BT709), (Colorspace.ITU601, BT601)])
@pytest.mark.parametrize("is_full", [False, True])
def test_the_tagged_matrix_and_range_are_used(
    matrix: Colorspace, coefficients: tuple[float, float], is_full: bool
) -> None:
    frame = plain(YUV, "yuv420p")
    frame.colorspace, frame.color_range = matrix, ColorRange.JPEG if is_full else ColorRange.MPEG
    assert close(to_rgb(frame), formula(YUV, *coefficients, is_full=is_full))


@pytest.mark.parametrize(("height", "coefficients"), [(576, BT601), (720, BT709), (1080, BT709)])
def test_without_a_tag_the_size_decides(height: int, coefficients: tuple[float, float]) -> None:
    assert close(to_rgb(plain(YUV, "yuv420p", side=height)), formula(YUV, *coefficients))


def test_ten_bits() -> None:
    frame = plain((YUV[0] * 4 + 2, YUV[1] * 4, YUV[2] * 4), "yuv420p10le")
    frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
    assert close(to_rgb(frame), formula((YUV[0] + 0.5, YUV[1], YUV[2]), *BT709))


def pq(nits: float) -> float:
    """Signal of SMPTE ST 2084."""
    power = (nits / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


@pytest.mark.parametrize(
    ("transfer", "signals"),
    [
        (ColorTrc.SMPTE2084, [pq(nits) for nits in (0.0, 20.0, 203.0, 1000.0, 4000.0)]),
        (ColorTrc.ARIB_STD_B67, [0.0, 0.35, 0.75, 1.0, 1.0]),
    ],
)
def test_high_dynamic_range_is_mapped(transfer: ColorTrc, signals: list[float]) -> None:
    greys = []
    for signal in signals:
        frame = plain((round(64 + 876 * signal), 512, 512), "yuv420p10le")
        frame.colorspace, frame.color_range = Colorspace.BT2020, ColorRange.MPEG
        frame.color_trc, frame.color_primaries = transfer, ColorPrimaries.BT2020
        pixel = to_rgb(frame)[20, 20].astype(int)
        assert np.ptp(pixel) <= 1, "grey stays grey"
        greys.append(int(pixel[0]))
    black, dark, white, peak, above = greys
    assert black <= 1
    assert 70 < dark < 110, "a tenth of SDR white is about 0.1 ** (1 / 2.2)"
    assert 215 < white < 250, "SDR white leaves room for light"
    assert (peak, above) == (255, 255)


def test_a_wide_gamut_is_mapped() -> None:
    frame = plain(YUV, "yuv420p")
    frame.colorspace, frame.color_range, frame.color_primaries = (
        Colorspace.BT2020,
        ColorRange.MPEG,
        ColorPrimaries.BT2020,
    )
    red, green, blue = to_rgb(frame)[20, 20].astype(int)
    plain_red, plain_green, _ = formula(YUV, *BT2020)
    assert red > plain_red + 3
    assert green < plain_green
    assert blue >= 0


@pytest.mark.parametrize("transfer", [ColorTrc.LINEAR, ColorTrc.LOG])
def test_other_transfer_functions_are_refused_by_name(transfer: ColorTrc) -> None:
    frame = plain(YUV, "yuv420p")
    frame.color_trc = transfer
    with pytest.raises(ValueError, match=r"has (linear|logarithmic) colours, which cannot be shown"):
        to_rgb(frame)


def test_alpha_is_over_white() -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (200, 0, 0, 255)
    rgba[0, 1] = (200, 0, 0, 128)
    shown = over_white(rgba).astype(int)
    assert shown[0, 0].tolist() == [200, 0, 0]
    assert np.abs(shown[0, 1] - [227, 127, 127]).max() <= 1
    assert shown[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.mkv", "ffv1", "bgra"), ("a.webm", "libvpx-vp9", "yuva420p"),
     ("a.mov", "prores_ks", "yuva444p10le")],
)  # fmt: skip
def test_a_film_with_alpha_is_over_white(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    frames = [np.zeros((64, 64, 4), np.uint8) for _ in range(120)]
    for frame in frames:
        frame[:, :32] = (0, 0, 255, 255)
    options = {"g": "10"} if "vpx" in codec else {}
    path = write_film(tmp_path / name, frames, codec=codec, pix_fmt=pix_fmt, source_format="rgba", options=options)
    for start_s in (0.0, 3.0):  # the second is sought
        with open_video(path) as video:
            found = list(video.frames(start_s))
        assert len(found) == 120 - 30 * start_s
        pixels = found[0].pixels().astype(int)
        assert np.abs(pixels[9, 9] - [0, 0, 255]).max() <= 6
        assert pixels[9, 60].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9")])
@pytest.mark.parametrize("size", [(96, 64), (1280, 720)])
def test_written_files_carry_their_colours(tmp_path: Path, name: str, codec: str, size: tuple[int, int]) -> None:
    colour = (32, 192, 64)
    clip = np.full((3, size[1], size[0], 3), colour, np.uint8)
    write_video(tmp_path / name, clip, 8.0, codec=codec)
    with av.open(str(tmp_path / name)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (Colorspace.ITU709, ColorRange.MPEG)
        assert frame.color_primaries == ColorPrimaries.BT709
        coded = tuple(int(np.frombuffer(plane, np.uint8)[9]) for plane in frame.planes)
    assert np.abs(np.array(formula(coded, *BT709)) - colour).max() <= 3, "also to a player that takes BT.709 for all"
    with open_video(tmp_path / name) as video:
        assert np.abs(next(video.frames()).pixels().astype(int) - colour).max() <= 3


def test_an_mp4_has_its_index_in_front_and_the_same_bytes(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), np.uint8)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, clip, 8.0)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert content == (tmp_path / "b.mp4").read_bytes()


def test_a_lossless_file_is_read_to_the_bit(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 255, (5, 720, 64, 3), np.uint8)
    write_lossless(tmp_path / "a.mkv", clip, 8.0)
    with open_video(tmp_path / "a.mkv") as video:
        assert (np.stack([frame.pixels() for frame in video.frames()]) == clip).all()
