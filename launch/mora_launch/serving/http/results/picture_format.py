"""The format of a picture that a client asks for."""

from __future__ import annotations

import io
from dataclasses import dataclass

from mora_data.reading.fitting import Clip
from PIL import Image

from mora_launch.tasks.media import png

PICTURE_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True)
class PictureFormat:
    """A format with its quality.

    Attributes:
        kind: one of `PICTURE_TYPES`.
        quality: 0 to 100, of jpeg and webp; png keeps every bit.
    """

    kind: str = "png"
    quality: int = 100

    @property
    def media_type(self) -> str:
        """Its content type."""
        return PICTURE_TYPES[self.kind]

    def encode(self, picture: Clip) -> bytes:
        """Return a picture, uint8 (height, width, 3), as a file."""
        if self.kind == "png":
            return png(picture)
        sink = io.BytesIO()
        Image.fromarray(picture).save(sink, self.kind.upper(), quality=self.quality)
        return sink.getvalue()
