"""Decodes a picture as a viewer shows it: turned by its orientation, in sRGB by its colour profile, over white."""

from __future__ import annotations

import io
import logging
import warnings
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from mora_data.reading.colour import over_white
from mora_data.reading.file_kind import PICTURES, kind_of
from mora_data.reading.fitting import Clip, fitted
from mora_data.reading.unreadable import Unreadable

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_UNSHOWABLE = {"I": "32-bit integer", "F": "32-bit float"}
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
_SCAN = b"\xff\xda"  # which the data of a scan cannot contain
_MAX_NUM_SCANS = 64  # encoders write about ten; each costs a pass over all pixels
_MAX_PROFILE_NBYTES = 4 << 20
_FAULTS = (
    OSError, ValueError, SyntaxError, EOFError, OverflowError, ZeroDivisionError,
    Image.DecompressionBombError,
)  # fmt: skip
# about broken metadata Pillow warns on the terminal, with our source path
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


def decoded_picture(
    content: bytes, *, size: tuple[int, int] | None = None, coded_size: tuple[int, int] | None = None
) -> Clip:
    """Decode a PNG, JPEG, WebP, AVIF or TIFF to uint8 (H, W, 3).

    Args:
        size: (height, width) of the result, as by `fitted`; a JPEG several times as large is then decoded at a
            fraction of its size.
        coded_size: (height, width) that its headers gave; another one is refused before decoding.

    Raises:
        Unreadable: another kind of file, named, or a broken picture.
    """
    kind = kind_of(content)
    if kind.media != "picture":
        raise Unreadable(f"is {kind}; expected a {PICTURES}")
    if kind.decoder == "JPEG" and (num_scans := content.count(_SCAN)) > _MAX_NUM_SCANS:
        raise Unreadable(f"expected at most {_MAX_NUM_SCANS} scans in a JPEG, got {num_scans}")
    try:
        with Image.open(io.BytesIO(content), formats=(kind.decoder,)) as image:
            if coded_size is not None and sorted(image.size) != sorted(coded_size):
                raise Unreadable("expected one size in its headers, got several")
            picture = _shown(image, size)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(f"is no whole {kind.name} picture") from None
    except _FAULTS as error:
        raise Unreadable(f"expected a {PICTURES} that can be decoded ({error})") from None
    return picture if size is None else fitted(picture[None], *size)[0]


def read_picture_file(file: BinaryIO) -> Clip:
    """Decode a picture from an open file. Raises: Unreadable."""
    file.seek(0)
    return decoded_picture(file.read())


def _shown(image: Image.Image, size: tuple[int, int] | None) -> Clip:
    if size is not None:
        is_turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
        height, width = (size[1], size[0]) if is_turned else size
        image.draft("RGB", (2 * width, 2 * height))
    if (name := _UNSHOWABLE.get(image.mode)) is not None:
        raise Unreadable(f"has {name} pixels, whose range is not known; save it with 8 or 16 bits a channel")
    return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Clip:
    """Pixels over white, in sRGB."""
    if image.mode in _SIXTEEN_BITS:
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"), dtype=np.uint8)
        colours = _in_srgb(Image.fromarray(np.ascontiguousarray(rgba[..., :3])), profile)
        return over_white(np.dstack([np.asarray(colours, dtype=np.uint8), rgba[..., 3]]))
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    return _pixels(_in_srgb(image, profile).convert("RGB"))


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Convert colours by an ICC profile; a profile that is broken, or of another kind of colours, is ignored."""
    if not isinstance(profile, bytes) or not 0 < len(profile) <= _MAX_PROFILE_NBYTES:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return image if shown is None else shown


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8)
