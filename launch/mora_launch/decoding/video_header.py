"""Headers of animated pictures, read before decoding: the cost of all frames."""

from __future__ import annotations

from mora_data.reading.file_kind import FileKind

from mora_launch.limits import MAX_ANIMATION_NUM_PIXELS, MAX_NUM_GIF_BLOCKS
from mora_launch.tasks.errors import BadRequest

_GIF_IMAGE, _GIF_EXTENSION = 0x2C, 0x21


def check_animation(content: bytes, kind: FileKind, whose: str, max_frames: int) -> int:
    """Return the pixels of all frames of a gif or an animated picture, each as large as its canvas; 0 of other videos.

    Raises:
        BadRequest: more than allowed.
    """
    if kind.decoder == "gif":
        width, height = (int.from_bytes(content[start : start + 2], "little") for start in (6, 8))
        num_frames = _num_gif_frames(content, whose, max_frames + 1)
    elif kind.decoder == "WEBP":
        width, height = (1 + int.from_bytes(content[start : start + 3], "little") for start in (24, 27))
        num_frames = _num_webp_frames(content, max_frames + 1)
    else:
        return 0
    if num_frames > max_frames:
        raise BadRequest(whose, f"expected at most {max_frames} frames; cut the video")
    if num_frames * width * height > MAX_ANIMATION_NUM_PIXELS:
        what = f"{num_frames} frames of {width}x{height}"
        raise BadRequest(whose, f"expected at most {MAX_ANIMATION_NUM_PIXELS} pixels in all frames, got {what}")
    return num_frames * width * height


def _num_webp_frames(content: bytes, most: int) -> int:
    """Count the frames of an animated WebP, up to `most`."""
    position, number = 12, 0
    while position + 8 <= len(content) and number < most:
        number += content[position : position + 4] == b"ANMF"
        nbytes = int.from_bytes(content[position + 4 : position + 8], "little")
        position += 8 + nbytes + nbytes % 2
    return number


def _num_gif_frames(content: bytes, whose: str, most: int) -> int:
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
            raise BadRequest(whose, f"expected at most {MAX_NUM_GIF_BLOCKS} blocks in a gif, got more")
    return number


def _colours_nbytes(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
