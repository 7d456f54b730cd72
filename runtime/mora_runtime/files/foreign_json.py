"""JSON from untrusted sources: any bytes give one value within bounds, or one ValueError.

Starts without torch. `json.loads` alone accepts duplicate keys, NaN, numbers that overflow a float, nesting up to the
recursion limit, and texts with unpaired surrogates, which cannot be encoded again.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 64
MAX_NUM_VALUES = 2_000_000  # in one text: about 200 MB of objects at worst


def parse_json(text: bytes, *, max_depth: int = MAX_DEPTH, max_num_values: int = MAX_NUM_VALUES) -> Any:
    """Parse UTF-8 text.

    Raises:
        ValueError: the text is not JSON within the bounds; the message is one line.
    """
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > max_num_values:
        raise ValueError(f"expected at most {max_num_values} values, got more")
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_without_repetition,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short_integer,
        )
    except RecursionError:
        raise ValueError(f"expected at most {max_depth} levels of nesting, got more") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError:
        raise ValueError("is not JSON: it is not UTF-8") from None
    _check(value, max_depth)
    return value


def parse_object(text: bytes, *, max_depth: int = MAX_DEPTH, max_num_values: int = MAX_NUM_VALUES) -> dict[str, Any]:
    """Parse UTF-8 text as a JSON object. Raises: ValueError: it is not one."""
    value = parse_json(text, max_depth=max_depth, max_num_values=max_num_values)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} occurs twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"expected finite numbers, got {name}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers, got {text[:20]}")
    return value


def _short_integer(text: str) -> int:
    if len(text) > 40:
        raise ValueError(f"expected integers of at most 40 digits, got one of {len(text)}")
    return int(text)


def _check(value: Any, max_depth: int) -> None:
    """Check every level and text, without recursion."""
    level = [value]
    for _ in range(max_depth + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, str) and not each.isascii():
                _check_text(each)
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, dict):
                inner += each
                inner += each.values()
        if not inner:
            return
        level = inner
    raise ValueError(f"expected at most {max_depth} levels of nesting, got more")


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("contains an unpaired surrogate, which is not valid text") from None
