"""References in a body: `{"image_url": "data:..."}` of OpenAI's interface, or `{"id": "video_..."}`.

In a form, a reference is a field with the name `NAME[image_url]`, or an object as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mora_launch.serving.http.requests.objects import given_object
from mora_launch.tasks.errors import BadRequest

_EXPECTED = {
    "image_url": "a file, a data: URL or an object with `image_url` alone",
    "id": "a file, the id of a finished video or an object with `id` alone",
}


def plain_references(
    values: dict[str, Any], keys: Mapping[str, str], aliases: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the values of a body with each reference replaced by its text.

    Args:
        keys: the one key of an object, `image_url` or `id`, by the field that may be a reference.
        aliases: other names of these fields.

    Raises:
        BadRequest: an object of another form, such as one with a `file_id`, or a field given twice.
    """
    plain = dict(values)
    for name, key in keys.items():
        names = [name, *(alias for alias, meant in (aliases or {}).items() if meant == name)]
        given = [each for each in (given_object(plain, known) for known in names) if each is not None]
        if len(given) > 1:
            raise BadRequest(name, f"is given twice, as {' and '.join(names)}; give it once")
        if given:
            plain[name] = _text(name, key, given[0]) if isinstance(given[0], dict) else given[0]
    return plain


def _text(name: str, key: str, reference: dict[str, Any]) -> str:
    text = reference.get(key)
    if set(reference) != {key} or not isinstance(text, str):
        found = ", ".join(sorted(reference)[:3])[:60] or "an empty object"
        raise BadRequest(name, f"expected {_EXPECTED[key]}, got {found}")
    return text
