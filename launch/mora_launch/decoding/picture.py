"""Decoding of a picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from mora_launch.decoding.clip import Clip, fitted
from mora_launch.decoding.picture_header import KINDS, read_header
from mora_launch.tasks.errors import BadRequest


def read_picture(content: bytes, field: str, size: tuple[int, int] | None = None) -> Clip:
    """Decode a PNG, JPEG or WebP to uint8 (H, W, 3).

    Args:
        size: (height, width) of the result, as by `fitted`; a JPEG several times as large is then decoded at a
            fraction of its size.

    Raises:
        BadRequest: for `field`: another format, a broken picture, or one that costs too much.
    """
    header = read_header(content, field)
    try:
        with Image.open(io.BytesIO(content), formats=(header.kind,)) as image:
            if (image.width, image.height) != (header.width, header.height):
                raise BadRequest(field, "expected one size in its headers, got several")
            if size is not None:
                image.draft("RGB", (2 * size[1], 2 * size[0]))
            picture = np.asarray(image.convert("RGB"), dtype=np.uint8)
    except UnidentifiedImageError:
        raise BadRequest(field, f"expected {KINDS}, got something else") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadRequest(field, f"expected {KINDS} that can be decoded ({error})") from None
    return picture if size is None else fitted(picture[None], *size)[0]
