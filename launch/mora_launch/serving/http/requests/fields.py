"""Fields of a request's body, JSON or form, read one by one so that each error names its field."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from mora_runtime.schema import nearest_name
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mora_launch.limits import MAX_FORM_FIELD_NBYTES, MAX_JSON_NBYTES, MAX_NUM_FILES, MAX_NUM_FORM_FIELDS
from mora_launch.serving.http.front import WrongContentType
from mora_launch.serving.http.requests import json_body
from mora_launch.serving.http.requests.bodies import FORM, RequestBody
from mora_launch.serving.http.requests.objects import given_object, with_groups
from mora_launch.serving.http.requests.references import plain_references
from mora_launch.tasks.errors import BadRequest

_URLENCODED = "application/x-www-form-urlencoded"
_LONG_NBYTES = 64 << 10  # JSON from this size on is parsed in a thread, not in the event loop
_BOUNDARY = re.compile(r""";\s*boundary=(?:"([\w'()+,./:=? -]{1,70})"|([\w'()+./:=?-]{1,70}))\s*(?:;|$)""", re.I | re.A)
_NO_LIMIT = 1 << 62  # the guard limits the body


class RequestFields:
    """The values of a body by name, and the content of its files."""

    def __init__(self, values: dict[str, Any], files: dict[str, list[bytes]]) -> None:
        self._values = values
        self.files = files

    @classmethod
    async def read(cls, request: Request, body: type[RequestBody]) -> RequestFields:
        """Read a request's body. Raises: BadRequest: names the field. WrongContentType."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        files: dict[str, list[bytes]] = {}
        if kind == "application/json":
            values = await _json(request, body)
        elif kind == FORM:
            values, files = await _form(request, body)
        elif kind == _URLENCODED:
            values = _urlencoded(await json_body.read_bytes(request, MAX_JSON_NBYTES))
        else:
            expected = "expected application/json, multipart/form-data or application/x-www-form-urlencoded"
            text = f"{expected}, got {kind[:60] or 'none'}; for JSON, send Content-Type: application/json"
            raise WrongContentType("content-type", text)
        values = plain_references(values, body.references, body.aliases, body.files)
        values = with_groups(values, body.groups)
        values |= {name: given_object(values, name) for name in body.objects}
        files = _checked_files(files, values, body)
        known = body.names()
        for name in [*values, *files]:
            if name not in known and name.partition("[")[0] not in body.ignored:
                raise BadRequest(name[:60], f"unknown field{_advice(name[:60], body)}")
        return cls(values, files)

    def anything(self, name: str) -> Any:
        """Return a value of any type, or None if the field is absent."""
        return self._values.get(name)

    def text(self, name: str) -> str | None:
        """Return a text, or None if the field is absent."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise BadRequest(name, f"expected text, got {type(value).__name__}")
        return value

    def texts(self, name: str) -> list[str]:
        """Return the texts of a field that may be a list; empty if it is absent."""
        value = self._values.get(name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        for each in values:
            if not isinstance(each, str):
                raise BadRequest(name, f"expected text, got {type(each).__name__}")
        return values

    def number(self, name: str) -> float | None:
        """Return a finite number, or None if the field is absent."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            number = float(value) if not isinstance(value, bool) else float("nan")
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not abs(number) < 1e12:
            raise BadRequest(name, f"expected a number, got {_shown(value)}")
        return number

    def integer(self, name: str) -> int | None:
        """Return a whole number, or None if the field is absent."""
        number = self.number(name)
        if number is not None and number != int(number):
            raise BadRequest(name, f"expected a whole number, got {number}")
        return None if number is None else int(number)

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false; the default if the field is absent or null."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if not isinstance(value, str) or value.lower() not in ("true", "false"):
            raise BadRequest(name, f"expected true or false, got {_shown(value)}")
        return value.lower() == "true"


def _checked_files(
    files: dict[str, list[bytes]], values: dict[str, Any], body: type[RequestBody]
) -> dict[str, list[bytes]]:
    """Return the files by the main names of their fields. Raises: BadRequest: a field takes none, or is given twice."""
    checked: dict[str, list[bytes]] = {}
    for name, contents in files.items():
        main = body.aliases.get(name, name)
        if main in body.names() and main not in body.files:
            raise BadRequest(name, "expected text, got a file")
        if main in checked or values.get(main) is not None:
            raise BadRequest(main, "is given twice; give it once, as a file or as text")
        checked[main] = contents
    return checked


def _advice(name: str, body: type[RequestBody]) -> str:
    """Say what to give in place of a field that is not known."""
    if name in body.instead:
        return f"; {body.instead[name]}"
    nearest = nearest_name(name, body.names())
    return f"; did you mean `{nearest}`?" if nearest else ""


def _shown(value: Any) -> str:
    """Return the beginning of a value, without formatting all of a long one."""
    return str(value)[:40] if isinstance(value, str | float | bool) else type(value).__name__


async def _json(request: Request, body: type[RequestBody]) -> dict[str, Any]:
    content = await json_body.read_bytes(request, _NO_LIMIT if body.references else MAX_JSON_NBYTES)
    if len(content) > _LONG_NBYTES:
        return await run_in_threadpool(json_body.parse, content, may_hold_data_urls=bool(body.references))
    return json_body.parse(content, may_hold_data_urls=False)


def _urlencoded(body: bytearray) -> dict[str, Any]:
    if body.lstrip()[:1] == b"{":
        text = "expected application/json with a JSON body, got a form; send Content-Type: application/json"
        raise BadRequest("content-type", text)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_NUM_FORM_FIELDS))
    except ValueError:
        raise BadRequest("body", f"cannot be read as a form of at most {MAX_NUM_FORM_FIELDS} fields") from None


def _with_plain_form(request: Request) -> Request:
    """Return the request with only the boundary in its content type. A charset from the client would select the codec
    for its texts, and some codecs take hours."""
    boundary = _BOUNDARY.search(request.headers.get("content-type", ""))
    if boundary is None:
        raise BadRequest("content-type", "expected a boundary of 1 to 70 plain characters in multipart/form-data")
    plain = f'{FORM}; boundary="{boundary[1] or boundary[2]}"'.encode("latin-1")
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    return Request({**request.scope, "headers": [*headers, (b"content-type", plain)]}, request.receive)


async def _form(request: Request, body: type[RequestBody]) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    values: dict[str, Any] = {}
    given: dict[str, list[str]] = {}  # references
    files: dict[str, list[bytes]] = {}
    try:
        form = await _with_plain_form(request).form(
            max_files=MAX_NUM_FILES,
            max_fields=MAX_NUM_FORM_FIELDS,
            max_part_size=_NO_LIMIT if body.references else MAX_FORM_FIELD_NBYTES,
        )
    except HTTPException as error:
        raise BadRequest("body", f"cannot be read as a form ({error.detail})") from None
    except (LookupError, ValueError):  # an unknown charset, or bytes that are invalid in it
        raise BadRequest("body", "cannot be read as a form") from None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault(name.removesuffix("[]"), []).append(await value.read())
        elif body.is_reference(main := name.removesuffix("[]")):
            given.setdefault(main, []).append(value)
        else:
            values[name] = value
    await form.close()
    values |= {name: texts if len(texts) > 1 else texts[0] for name, texts in given.items()}
    for name, text in values.items():
        if len(text) > MAX_FORM_FIELD_NBYTES and not body.may_be_long(name):
            raise BadRequest(name[:60], f"expected at most {MAX_FORM_FIELD_NBYTES} characters, got {len(text)}")
    return values, files
