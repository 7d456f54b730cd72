"""OpenAI's reference object, `{"image_url": "data:..."}`; in a form it is a field with the name `NAME[image_url]`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mora_launch.tasks.errors import BadRequest

_URL = "image_url"


def plain_references(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the values of a body with each reference object replaced by its URL.

    Args:
        names: fields that may be references.

    Raises:
        BadRequest: an object of another form, such as one with a `file_id`.
    """
    plain = dict(values)
    for name in names:
        parts = {key: plain.pop(key) for key in values if key.startswith(f"{name}[") and key.endswith("]")}
        given: list[Any] = [plain[name]] if plain.get(name) is not None else []
        if parts:
            given.append({key[len(name) + 1 : -1]: value for key, value in parts.items()})
        if len(given) > 1:
            raise BadRequest(name, "is given twice, as a text and as an object; give it once")
        if given and isinstance(given[0], dict):
            plain[name] = _url(name, given[0])
    return plain


def _url(name: str, reference: dict[str, Any]) -> str:
    url = reference.get(_URL)
    if set(reference) != {_URL} or not isinstance(url, str):
        found = ", ".join(sorted(reference)[:3])[:60] or "an empty object"
        raise BadRequest(name, f"expected a file, a data: URL or an object with `{_URL}` alone, got {found}")
    return url
