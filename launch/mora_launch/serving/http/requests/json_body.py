"""Reads a JSON body of at most 1 MiB without its data: URLs, which are cut out before parsing."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from mora_runtime.files.foreign_json import parse_object

from mora_launch.limits import MAX_JSON_DEPTH, MAX_JSON_NBYTES, MAX_NUM_FILES, MAX_NUM_JSON_VALUES
from mora_launch.tasks.errors import BadRequest

_DATA_URL = b'"data:'


async def read_bytes(request: Request, most: int) -> bytearray:
    """Read a body of at most `most` bytes. Raises: BadRequest: it is longer."""
    body = bytearray()  # one block, so that its memory returns to the system as a whole
    try:
        async for part in request.stream():
            body += part
            if len(body) > most:
                raise BadRequest("body", f"expected at most {most} bytes of text, got more; send files as a form")
    except BaseException:
        body.clear()  # the error's traceback keeps the object alive
        raise
    return body


def parse(body: bytes | bytearray, *, may_hold_data_urls: bool) -> dict[str, Any]:
    """Parse a body as an object. Raises: BadRequest: it is not one, is too long, or has too many data: URLs."""
    urls: list[bytes] = []
    if may_hold_data_urls and len(body) > MAX_JSON_NBYTES:
        body = _cut_out(body, urls)
    if len(body) > MAX_JSON_NBYTES:
        raise BadRequest("body", f"expected at most {MAX_JSON_NBYTES} bytes of JSON without data: URLs, got more")
    try:
        values = parse_object(bytes(body), max_depth=MAX_JSON_DEPTH, max_num_values=MAX_NUM_JSON_VALUES)
    except ValueError as error:
        raise BadRequest("body", str(error)) from None
    return {name: _put_back(value, urls) for name, value in values.items()}


def _cut_out(body: bytes | bytearray, urls: list[bytes]) -> bytes:
    """Replace each data: URL by `"data:N"` if that is shorter, and append the URL to `urls`."""
    parts, position = [], 0
    while (start := body.find(_DATA_URL, position)) >= 0:
        end = body.find(b'"', start + 1)
        if end < 0 or len(urls) == MAX_NUM_FILES:
            break
        parts += [body[position:start], b'"data:%d"' % len(urls)]
        urls.append(bytes(body[start + 1 : end]))
        position = end + 1
    return b"".join([*parts, body[position:]])


def _put_back(value: Any, urls: list[bytes]) -> Any:
    if isinstance(value, dict):  # a reference object
        return {name: _put_back(each, urls) for name, each in value.items()}
    if isinstance(value, list):
        return [_put_back(each, urls) for each in value]
    number = value.removeprefix("data:") if isinstance(value, str) and value.startswith("data:") else ""
    if number.isdecimal() and len(number) == 1 and int(number) < len(urls):
        return urls[int(number)].decode("latin-1")
    return value
