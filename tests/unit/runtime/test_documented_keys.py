"""Keys of settings classes in words: type, limits, default, and the comment in the class."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from mora_environment.keys.documented_keys import documented_keys, sections_in
from mora_runtime.schema import PositiveInt, Settings
from pydantic import Field


class Inner(Settings):
    side: PositiveInt = 1


class Base(Settings):
    inherited: bool = True  # from the base


class Outer(Base):
    after: int  # a comment after it
    # a comment above it
    above: str = "text"
    # of two
    # lines
    both: float = Field(default=0.5, gt=0.0, le=1.0)  # and one after it

    # of a group, which is not directly above

    silent: Annotated[int, Field(ge=2, multiple_of=4)] = 4
    wrapped: tuple[int, ...] = Field(default=(), min_length=2)  # at the end of several lines
    hashes: str = "#no comment"
    kind: Literal["a", "b"] | None = None
    pair: tuple[float, float] = (0.9, 0.99)
    inner: Inner = Inner()
    maybe: Inner | None = None
    named: dict[str, PositiveInt] = Field(default_factory=lambda: {"one": 1})


@pytest.mark.parametrize(
    ("name", "words", "default", "meaning"),
    [
        ("inherited", "true or false", True, "from the base"),
        ("above", "text", "text", "a comment above it"),
        ("both", "number, above 0, at most 1", 0.5, "of two lines and one after it"),
        ("silent", "integer, 2 or more, a multiple of 4", 4, ""),
        ("wrapped", "list, 2 or more: integer", [], "at the end of several lines"),
        ("hashes", "text", "#no comment", ""),
        ("kind", "a or b or null", None, ""),
        ("pair", "list of 2: number", [0.9, 0.99], ""),
        ("inner", "section", {"side": 1}, ""),
        ("maybe", "section or null", None, ""),
        ("named", "mapping of names to integer, 1 or more", {"one": 1}, ""),
    ],
)
def test_a_key_in_words(name: str, words: str, default: object, meaning: str) -> None:
    (key,) = [key for key in documented_keys(Outer) if key.name == name]
    assert (key.type, key.default, key.meaning) == (words, default, meaning)
    assert not key.is_required


def test_a_key_without_a_default_is_required() -> None:
    assert [key.name for key in documented_keys(Outer) if key.is_required] == ["after"]


def test_sections_are_found_in_every_form() -> None:
    forms = (Inner, Inner | None, dict[str, Inner], tuple[Inner, ...])
    assert [sections_in(form) for form in forms] == [[Inner]] * 4
    assert sections_in(dict[str, int]) == []
