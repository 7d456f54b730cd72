"""Decoding of a picture of a request."""

from __future__ import annotations

from mora_data.reading.fitting import Clip
from mora_data.reading.picture import decoded_picture
from mora_data.reading.unreadable import Unreadable

from mora_launch.decoding.picture_header import read_header
from mora_launch.tasks.errors import BadRequest


def read_picture(content: bytes, field: str, size: tuple[int, int] | None = None) -> Clip:
    """Decode a picture to uint8 (H, W, 3), as a viewer shows it.

    Args:
        size: (height, width) of the result, as by `fitted`; a JPEG several times as large is then decoded at a
            fraction of its size.

    Raises:
        BadRequest: for `field`: another kind of file, a broken picture, or one that costs too much.
    """
    header = read_header(content, field)
    try:
        return decoded_picture(content, size=size, coded_size=(header.height, header.width))
    except Unreadable as error:
        raise BadRequest(field, str(error)) from None
