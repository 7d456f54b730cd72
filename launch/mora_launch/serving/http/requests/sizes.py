"""The size that a request asks for, as `size` or as `width` and `height`."""

from __future__ import annotations

from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.tasks.errors import BadRequest


def asked_size(fields: RequestFields) -> str | None:
    """Return WIDTHxHEIGHT, or None if the request names no size. Raises: BadRequest: it names half of one, or two."""
    size, width, height = fields.text("size"), fields.integer("width"), fields.integer("height")
    if width is None and height is None:
        return size
    if width is None or height is None:
        missing, given = ("width", "height") if width is None else ("height", "width")
        raise BadRequest(missing, f"is missing; give it together with {given}, or give size=WIDTHxHEIGHT")
    if size is not None:
        raise BadRequest("size", "is given together with width and height; give one of them")
    return f"{width}x{height}"
