"""Headers of videos, read before decoding: the container and, for a gif, the cost of all frames."""

from __future__ import annotations

from mora_launch.limits import MAX_GIF_NUM_PIXELS, MAX_NUM_GIF_BLOCKS
from mora_launch.tasks.errors import BadRequest

_GIF_IMAGE, _GIF_EXTENSION = 0x2C, 0x21


def video_format(content: bytes) -> str | None:
    """Return FFmpeg's name of a file's container; None for another format."""
    if content[4:8] == b"ftyp":
        return "mp4"
    if content[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "gif" if content[:6] in (b"GIF87a", b"GIF89a") else None


def check_gif(content: bytes, field: str, max_frames: int) -> int:
    """Return the pixels of all frames of a gif, each as large as its canvas. Raises: BadRequest: more than allowed."""
    width, height = (int.from_bytes(content[start : start + 2], "little") for start in (6, 8))
    num_frames = _num_frames(content, field, max_frames + 1)
    if num_frames > max_frames:
        raise BadRequest(field, f"expected at most {max_frames} frames; cut the video")
    if num_frames * width * height > MAX_GIF_NUM_PIXELS:
        what = f"{num_frames} frames of {width}x{height}"
        raise BadRequest(field, f"expected at most {MAX_GIF_NUM_PIXELS} pixels in all frames of a gif, got {what}")
    return num_frames * width * height


def _num_frames(content: bytes, field: str, most: int) -> int:
    """Count the image blocks of a gif, up to `most`. Raises: BadRequest: it has too many blocks of other kinds."""
    position = 13 + _colours_nbytes(content[10:11])
    number = num_blocks = 0
    while position < len(content) and number < most:
        kind = content[position]
        if kind not in (_GIF_IMAGE, _GIF_EXTENSION):  # the trailer, or bytes at which every decoder stops
            break
        number += kind == _GIF_IMAGE
        position += 11 + _colours_nbytes(content[position + 9 : position + 10]) if kind == _GIF_IMAGE else 2
        while position < len(content) and content[position]:
            position += 1 + content[position]
            num_blocks += 1
        position += 1
        num_blocks += 1
        if num_blocks > MAX_NUM_GIF_BLOCKS:
            raise BadRequest(field, f"expected at most {MAX_NUM_GIF_BLOCKS} blocks in a gif, got more")
    return number


def _colours_nbytes(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
