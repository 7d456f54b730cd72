"""Objects in a body. A form has them as text in JSON, or as one field with the name `NAME[KEY]` for each key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mora_launch.serving.http.requests import json_body
from mora_launch.tasks.errors import BadRequest


def given_object(values: dict[str, Any], name: str) -> Any:
    """Remove a field from the values and return it: an object, if it is one in any form; None if it is absent.

    Raises:
        BadRequest: it is given as a text and as an object, or begins like an object and is none.
    """
    parts = {key: values.pop(key) for key in list(values) if key.startswith(f"{name}[") and key.endswith("]")}
    whole = values.pop(name, None)
    if not parts:
        return _parsed(name, whole) if isinstance(whole, str) and whole.lstrip()[:1] == "{" else whole
    if whole is not None:
        raise BadRequest(name, "is given twice, as a text and as an object; give it once")
    return {key[len(name) + 1 : -1]: value for key, value in parts.items()}


def _parsed(name: str, text: str) -> dict[str, Any]:
    try:
        return json_body.parse(text.encode(), may_hold_data_urls=True)
    except BadRequest as error:
        raise BadRequest(name, str(error).partition(": ")[2]) from None


def with_groups(values: dict[str, Any], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the values of a body with the fields of each group next to the others.

    Args:
        groups: the fields that an object may contain, by the object's name.

    Raises:
        BadRequest: names the group and a field that it may not contain, or a field that is given twice.
    """
    flat = dict(values)
    for name, allowed in groups.items():
        group = given_object(flat, name)
        if group is None:
            continue
        if not isinstance(group, dict):
            raise BadRequest(name, f"expected a JSON object, got {type(group).__name__}")
        for key, value in group.items():
            if key not in allowed:
                raise BadRequest(name, f"unknown field `{key[:60]}`; expected some of {', '.join(allowed)}")
            if value is not None and flat.get(key) is not None:
                raise BadRequest(key, f"is given twice, by itself and in {name}; give it once")
            flat[key] = flat.get(key) if value is None else value
    return flat
