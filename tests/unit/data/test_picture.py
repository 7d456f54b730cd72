"""Pictures are read as a viewer shows them."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import pytest
from made_files import corners, quad
from mora_data.reading.picture import decoded_picture
from mora_data.reading.unreadable import Unreadable
from PIL import Image, ImageCms

ORIENTED = {  # EXIF orientation: corners that a viewer shows
    1: ["red", "green", "blue", "white"], 2: ["green", "red", "white", "blue"], 3: ["white", "blue", "green", "red"],
    4: ["blue", "white", "red", "green"], 5: ["red", "blue", "green", "white"], 6: ["blue", "red", "white", "green"],
    7: ["white", "green", "blue", "red"], 8: ["green", "white", "red", "blue"],
}  # fmt: skip


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_every_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(quad(96, 64)), kind, exif=exif)
    picture = decoded_picture(content)
    assert corners(picture) == ORIENTED[orientation]
    assert picture.shape == ((64, 96, 3) if orientation < 5 else (96, 64, 3))
    assert corners(decoded_picture(content, size=(32, 32))) == ORIENTED[orientation]


def test_a_large_turned_jpeg_is_fitted_like_a_small_one() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(Image.fromarray(quad(1600, 800)), "JPEG", exif=exif, quality=95)
    picture = decoded_picture(content, size=(96, 32))
    assert picture.shape == (96, 32, 3)
    assert corners(picture) == ORIENTED[6]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_a_ramp(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256 * 256).reshape(256, 256).astype(np.uint16)
    picture = decoded_picture(saved(Image.fromarray(ramp), kind))
    assert (picture == (ramp >> 8)[..., None]).all()


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", (254, 0, 0)),
        (Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (Image.new("L", (64, 64), 99), "PNG", (99, 99, 99)),
        (Image.new("LA", (64, 64), (0, 128)), "PNG", (127, 127, 127)),
        (Image.new("1", (64, 64), 1), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (64, 64), (0, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (64, 64), (0, 0, 0, 0)), "WEBP", (255, 255, 255)),
        (Image.new("P", (64, 64), 0), "PNG", (0, 0, 0)),
        (Image.new("YCbCr", (64, 64), (76, 85, 255)), "JPEG", (254, 0, 0)),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_every_mode_becomes_rgb_over_white(image: Image.Image, kind: str, expected: tuple[int, int, int]) -> None:
    picture = decoded_picture(saved(image, kind)).astype(int)
    assert np.abs(picture - expected).max() <= 2


def test_a_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (64, 64), 3)
    image.putpalette([value for _ in range(256) for value in (10, 20, 30)])
    picture = decoded_picture(saved(image, "PNG", transparency=3))
    assert (picture == 255).all()


def test_a_colour_profile_is_applied() -> None:
    """In a profile whose red and green are swapped, red shows as green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    swapped = bytes(profile).replace(b"rXYZ", b"swap").replace(b"gXYZ", b"rXYZ").replace(b"swap", b"gXYZ")
    image = Image.new("RGB", (64, 64), (255, 0, 0))
    assert decoded_picture(saved(image, "PNG", icc_profile=bytes(profile)))[5, 5].tolist() == [255, 0, 0]
    assert decoded_picture(saved(image, "PNG", icc_profile=swapped))[5, 5].tolist() == [0, 255, 0]


@pytest.mark.parametrize("profile", [b"no profile", os.urandom(500)])
def test_a_broken_colour_profile_is_ignored(profile: bytes) -> None:
    image = Image.new("RGB", (64, 64), (255, 0, 0))
    assert decoded_picture(saved(image, "PNG", icc_profile=profile))[5, 5].tolist() == [255, 0, 0]


def test_pixels_of_no_known_range_are_refused_by_name() -> None:
    content = saved(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF")
    with pytest.raises(Unreadable, match="has 32-bit float pixels, whose range is not known"):
        decoded_picture(content)


def test_a_second_size_in_the_headers_is_refused() -> None:
    content = saved(Image.fromarray(quad(96, 64)), "PNG")
    assert decoded_picture(content, coded_size=(64, 96)).shape == (64, 96, 3)
    with pytest.raises(Unreadable, match="expected one size in its headers, got several"):
        decoded_picture(content, coded_size=(64, 95))


def test_a_jpeg_of_many_scans_is_refused() -> None:
    content = saved(Image.fromarray(quad(96, 64)), "JPEG", progressive=True)
    assert decoded_picture(content).shape == (64, 96, 3)
    with pytest.raises(Unreadable, match="expected at most 64 scans in a JPEG"):
        decoded_picture(content[:-2] + b"\xff\xda\0\0" * 100 + content[-2:])
