"""How a request wants its pictures: inside the answer, or as files with an address; in which format."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from mora_data.reading.fitting import Clip

from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.serving.http.results.picture_files import PictureFiles
from mora_launch.serving.http.results.picture_format import PICTURE_TYPES, PictureFormat
from mora_launch.serving.terms import LoraChoice, Terms
from mora_launch.tasks.errors import BadRequest

FILES = "/v1/images/files"
_WAYS = ("b64_json", "url")
_SMALL_NBYTES = 256 << 10  # of pixels; below, compressing them takes less time than handing them to a thread


@dataclass(frozen=True)
class PictureAnswer:
    """The way and the format that one request asks for.

    Attributes:
        lora: the adapters that the request chose; None if it chose none.
        address: that of the folder of files, as this client calls the server.
    """

    shape: PictureFormat
    is_url: bool
    files: PictureFiles
    lora: LoraChoice | None
    address: str

    @classmethod
    def of(cls, request: Request, fields: RequestFields, terms: Terms, files: PictureFiles) -> PictureAnswer:
        """Read it from a request's fields. Raises: BadRequest."""
        way = fields.text("response_format") or _WAYS[0]
        if way not in _WAYS:
            raise BadRequest("response_format", f"expected one of {', '.join(_WAYS)}, got {way[:20]}")
        address = f"{str(request.base_url).rstrip('/')}{FILES}"
        return cls(_shape(fields), way == "url", files, terms.lora, address)

    def adapters(self) -> dict[str, Any]:
        """Return the field `lora` of the answer, if the request chose adapters."""
        return {} if self.lora is None else {"lora": self.lora.model_dump()}

    async def datum(self, picture: Clip) -> dict[str, Any]:
        """Return the field of the answer that contains the picture, or its address. Raises: StorageError."""
        if self.is_url:
            return {"url": await run_in_threadpool(self._stored, picture)}
        is_quick = picture.nbytes <= _SMALL_NBYTES
        content = self.shape.encode(picture) if is_quick else await run_in_threadpool(self.shape.encode, picture)
        return {"b64_json": base64.b64encode(content).decode()}

    def _stored(self, picture: Clip) -> str:
        return f"{self.address}/{self.files.store(self.shape.encode(picture), self.shape)}"


def _shape(fields: RequestFields) -> PictureFormat:
    kind, quality = fields.text("output_format") or "png", fields.integer("output_compression")
    if kind not in PICTURE_TYPES:
        raise BadRequest("output_format", f"expected one of {', '.join(PICTURE_TYPES)}, got {kind[:20]}")
    if quality is None:
        return PictureFormat(kind)
    if kind == "png":
        raise BadRequest("output_compression", "png keeps every bit; give output_format=jpeg or webp with it")
    if not 0 <= quality <= 100:
        raise BadRequest("output_compression", f"expected 0 to 100, got {quality}")
    return PictureFormat(kind, quality)
