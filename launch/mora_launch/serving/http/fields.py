"""Fields of a request's body, JSON or form, read one by one so that each error names its field."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from fastapi import Request
from mora_runtime.schema import nearest_name
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mora_launch.serving.http.front import WrongContentType
from mora_launch.tasks.errors import BadRequest

MAX_NUM_FILES = 4
_MAX_NUM_FIELDS = 64


class Fields:
    """Values by name; files as their bytes.

    Args:
        ignored: fields of OpenAI's interface that mean nothing here.
    """

    def __init__(self, values: dict[str, Any], files: dict[str, list[bytes]]) -> None:
        self._values = values
        self.files = files

    @classmethod
    async def read(cls, request: Request, known: Collection[str], ignored: Collection[str] = ()) -> Fields:
        """Raises: BadRequest: naming the field; WrongContentType."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        files: dict[str, list[bytes]] = {}
        if kind == "application/json":
            values = _json(await request.body())
        elif kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
            values, files = await _form(request)
        else:
            raise WrongContentType(
                "content-type", f"expected application/json or multipart/form-data, got {kind[:60] or 'none'}"
            )
        for name in [*values, *files]:
            if name not in known and name not in ignored:
                nearest = nearest_name(name, known)
                raise BadRequest(name[:60], "unknown field" + (f"; did you mean `{nearest}`?" if nearest else ""))
        return cls(values, files)

    def text(self, name: str) -> str | None:
        """Text, or None where the field is absent."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise BadRequest(name, f"expected text, got {type(value).__name__}")
        return value

    def number(self, name: str) -> float | None:
        """A finite number."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            number = float(value) if not isinstance(value, bool) else float("nan")
        except (TypeError, ValueError):
            number = float("nan")
        if not abs(number) < 1e12:
            raise BadRequest(name, f"expected a number, got {str(value)[:40]}")
        return number

    def integer(self, name: str) -> int | None:
        """A whole number."""
        number = self.number(name)
        if number is not None and number != int(number):
            raise BadRequest(name, f"expected a whole number, got {number}")
        return None if number is None else int(number)

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self._values.get(name, default)
        if str(value).lower() not in ("true", "false"):
            raise BadRequest(name, f"expected true or false, got {str(value)[:40]}")
        return str(value).lower() == "true"


def _json(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("body", "is not JSON") from None
    if not isinstance(values, dict):
        raise BadRequest("body", f"expected a JSON object, got {type(values).__name__}")
    return values


async def _form(request: Request) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    values: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    try:
        form = await request.form(max_files=MAX_NUM_FILES, max_fields=_MAX_NUM_FIELDS)
    except HTTPException as error:
        raise BadRequest("body", f"cannot be read as a form ({error.detail})") from None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault(name.removesuffix("[]"), []).append(await value.read())
        else:
            values[name] = value
    await form.close()
    return values, files
