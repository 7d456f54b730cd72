"""Headers of pictures: the format, the size, and how often a decoder has to pass over the pixels.

They are read without a decoder, in time proportional to their length, so that a picture that costs too much is refused
before it is queued. The decoder checks the size again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mora_data.reading.file_kind import PICTURES, kind_of

from mora_launch.limits import (
    MAX_NUM_BOXES,
    MAX_NUM_JPEG_SEGMENTS,
    MAX_NUM_PNG_CHUNKS,
    MAX_NUM_SCANS,
    MAX_NUM_TIFF_FIELDS,
    MAX_PICTURE_NUM_PIXELS,
    MAX_SCANNED_NUM_PIXELS,
)
from mora_launch.tasks.errors import BadRequest

_PNG = b"\x89PNG\r\n\x1a\n"
_SIZES_IN_JPEG = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOFn
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_SCAN, _END = 0xDA, 0xD9
_SMALL_CHUNK_NBYTES = 1024
_SIZES_IN_TIFF = (256, 257)  # width, length
_TIFF_SHORT = 3


@dataclass(frozen=True)
class PictureHeader:
    """The cost of decoding a picture.

    Attributes:
        num_scans: passes over all pixels; more than one only for progressive JPEG.
    """

    kind: str  # Pillow's name of the format
    width: int
    height: int
    num_scans: int = 1

    @property
    def num_pixels(self) -> int:
        """Pixels of all scans together."""
        return self.width * self.height * self.num_scans


def read_header(content: bytes, field: str) -> PictureHeader:
    """Read the header of a picture.

    Raises:
        BadRequest: for `field`: another kind of file, or more pixels or scans than allowed.
    """
    kind = kind_of(content)
    if kind.media != "picture":
        raise BadRequest(field, f"is {kind}; expected a {PICTURES}")
    header = _READERS[kind.decoder](content)
    if header is None:
        raise BadRequest(field, f"expected a {PICTURES} with its size in its headers, got one without")
    if header.kind == "PNG" and (more := _odd_chunks(content)):
        raise BadRequest(field, f"expected at most {MAX_NUM_PNG_CHUNKS} chunks besides the image data, got {more}")
    if header.width < 1 or header.height < 1:
        raise BadRequest(field, f"expected a picture with at least one pixel, got {header.width}x{header.height}")
    if header.width * header.height > MAX_PICTURE_NUM_PIXELS:
        size = f"{header.width}x{header.height}"
        raise BadRequest(field, f"expected at most {MAX_PICTURE_NUM_PIXELS} pixels, got {size}; make it smaller")
    if header.num_scans > MAX_NUM_SCANS:
        raise BadRequest(field, f"expected at most {MAX_NUM_SCANS} scans in a JPEG, got {header.num_scans}")
    if header.num_pixels > MAX_SCANNED_NUM_PIXELS:
        what = f"{header.num_scans} scans of {header.width}x{header.height}"
        raise BadRequest(field, f"expected at most {MAX_SCANNED_NUM_PIXELS} pixels in all scans, got {what}")
    return header


def _png(content: bytes) -> PictureHeader | None:
    if content[12:16] != b"IHDR" or len(content) < 24:
        return None
    return PictureHeader("PNG", _big(content[16:20]), _big(content[20:24]))


def _odd_chunks(content: bytes) -> str | None:
    """Return what is wrong with the chunks of a PNG. Each costs time whatever its size, and some are compressed."""
    position, num_others, num_small, num_profiles = len(_PNG), 0, 0, 0
    while position + 8 <= len(content):
        nbytes, kind = _big(content[position : position + 4]), content[position + 4 : position + 8]
        if kind == b"IEND":
            break
        num_small += kind == b"IDAT" and nbytes < _SMALL_CHUNK_NBYTES
        num_others += kind != b"IDAT"
        num_profiles += kind == b"iCCP"
        if num_others > MAX_NUM_PNG_CHUNKS or num_small > MAX_NUM_PNG_CHUNKS or num_profiles > 1:
            return f"more, or several colour profiles ({kind.decode('ascii', 'replace')})"
        position += 12 + nbytes
    return None


def _jpeg(content: bytes) -> PictureHeader | None:
    """Return the largest size before the first scan and the number of scans; scan data cannot contain their marker."""
    position, width, height = 2, 0, 0
    for _ in range(MAX_NUM_JPEG_SEGMENTS):
        position = content.find(b"\xff", position)
        if position < 0 or position + 9 > len(content):
            break
        code = content[position + 1]
        if code in _SIZES_IN_JPEG:
            sizes = _big(content[position + 7 : position + 9]), _big(content[position + 5 : position + 7])
            width, height = max((width, height), sizes, key=lambda size: size[0] * size[1])
        if code in (_SCAN, _END):
            break
        position += (
            1 if code == 0xFF else 2 if code in _WITHOUT_LENGTH else 2 + _big(content[position + 2 : position + 4])
        )
    else:
        return None  # more segments than any encoder writes
    return PictureHeader("JPEG", width, height, max(1, content.count(b"\xff\xda"))) if width else None


def _webp(content: bytes) -> PictureHeader | None:
    kind = content[12:16]
    if kind == b"VP8X" and len(content) >= 30:
        return PictureHeader("WEBP", 1 + _little(content[24:27]), 1 + _little(content[27:30]))
    if kind == b"VP8L" and len(content) >= 25:
        bits = _little(content[21:25])
        return PictureHeader("WEBP", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 " and len(content) >= 30:
        return PictureHeader("WEBP", _little(content[26:28]) & 0x3FFF, _little(content[28:30]) & 0x3FFF)
    return None


def _avif(content: bytes) -> PictureHeader | None:
    """Return the largest size of its `ispe` boxes: a picture can be made of tiles."""
    width = height = position = 0
    for _ in range(MAX_NUM_BOXES):
        position = content.find(b"ispe", position + 4)
        if position < 0 or position + 16 > len(content):
            break
        sizes = _big(content[position + 8 : position + 12]), _big(content[position + 12 : position + 16])
        width, height = max((width, height), sizes, key=lambda size: size[0] * size[1])
    return PictureHeader("AVIF", width, height) if width else None


def _tiff(content: bytes) -> PictureHeader | None:
    """Return the size in the first directory, which is the picture that is shown."""
    order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
    at = int.from_bytes(content[4:8], order)
    num_fields = min(int.from_bytes(content[at : at + 2], order), MAX_NUM_TIFF_FIELDS)
    found: dict[int, int] = {}
    for start in range(at + 2, at + 2 + 12 * num_fields, 12):
        field = content[start : start + 12]
        tag, kind = int.from_bytes(field[:2], order), int.from_bytes(field[2:4], order)
        if len(field) == 12 and tag in _SIZES_IN_TIFF:
            found[tag] = int.from_bytes(field[8:10] if kind == _TIFF_SHORT else field[8:12], order)
    return PictureHeader("TIFF", *(found[tag] for tag in _SIZES_IN_TIFF)) if len(found) == 2 else None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


_READERS: dict[str, Callable[[bytes], PictureHeader | None]] = {
    "PNG": _png, "JPEG": _jpeg, "WEBP": _webp, "AVIF": _avif, "TIFF": _tiff,
}  # fmt: skip
