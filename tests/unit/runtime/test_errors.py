"""Errors cross a wire as codes and come back as the same class."""

import pytest
from mora_runtime import errors
from mora_runtime.errors import BY_CODE, MoraError, error_from_code

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MoraError)]


def test_every_error_has_a_code_of_its_own() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)
    assert set(BY_CODE.values()) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_code_gives_the_same_class_with_its_text(kind: type[MoraError]) -> None:
    back = error_from_code(kind.code, "what to do")
    assert type(back) is kind
    assert str(back) == "what to do"


@pytest.mark.parametrize("code", ["", "no such code", "__class__", "SystemExit"])
def test_an_unknown_code_is_a_plain_error_that_shows_it(code: str) -> None:
    back = error_from_code(code, "text")
    assert type(back) is MoraError
    assert str(back) == f"{code}: text"


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    for kind in KINDS:
        assert kind.__name__ in errors.__doc__
