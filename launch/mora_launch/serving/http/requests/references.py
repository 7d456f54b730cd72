"""References in a body: `{"image_url": "data:..."}` of OpenAI's interface, or `{"id": "video_..."}`, or a list of them.

In a form, a reference is a field with the name `NAME[image_url]`, or an object as text; a list is a field that comes
several times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mora_launch.serving.http.requests.objects import given_object
from mora_launch.tasks.errors import BadRequest

_EXPECTED = {
    ("image_url",): "a file, a data: URL or an object with `image_url` alone",
    ("id",): "a file, the id of a finished video or an object with `id` alone",
    ("image_url", "id"): "a file, a data: URL, the id of a finished video or an object with `image_url` or `id` alone",
}


class VideoId(str):
    """The id of a finished video, which the request gave as an object."""

    __slots__ = ()


def plain_references(
    values: dict[str, Any],
    keys: Mapping[str, tuple[str, ...]],
    aliases: Mapping[str, str] | None = None,
    numbers: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return the values of a body with each reference replaced by its text.

    Args:
        keys: the possible keys of an object, `image_url` or `id`, by the field that may be a reference.
        aliases: other names of these fields.
        numbers: the largest number of references by field; a field with more than one may be a list.

    Raises:
        BadRequest: an object of another form, such as one with a `file_id`, a list that is too long, or a field given
            twice.
    """
    plain = dict(values)
    for name, allowed in keys.items():
        names = [name, *(alias for alias, meant in (aliases or {}).items() if meant == name)]
        given = [each for each in (given_object(plain, known) for known in names) if each is not None]
        if len(given) > 1:
            raise BadRequest(name, f"is given twice, as {' and '.join(names)}; give it once")
        if given:
            plain[name] = _plain(name, allowed, given[0], (numbers or {}).get(name, 1))
    return plain


def _plain(name: str, keys: tuple[str, ...], given: Any, most: int) -> Any:
    if isinstance(given, list):
        if most == 1:
            raise BadRequest(name, "expected text, got list")
        if len(given) > most:
            raise BadRequest(name, f"expected at most {most} references, got {len(given)}")
        return [_plain(name, keys, each, 1) for each in given]
    return _text(name, keys, given) if isinstance(given, dict) else given


def _text(name: str, keys: Sequence[str], reference: dict[str, Any]) -> str:
    key, text = next(iter(reference.items()), ("", None))
    if len(reference) != 1 or key not in keys or not isinstance(text, str):
        found = ", ".join(sorted(reference)[:3])[:60] or "an empty object"
        raise BadRequest(name, f"expected {_EXPECTED[tuple(keys)]}, got {found}")
    return VideoId(text) if key == "id" else text
