"""A role is a text with two parts."""

import json

import pytest
from mora_runtime.process.role import Role


def test_a_role_is_its_text_and_has_a_name_and_a_replica() -> None:
    role = Role.of("image", 12)
    assert role == "image.12" == Role("image.12")
    assert (role.name, role.replica) == ("image", 12)
    assert {role: 1}["image.12"] == 1
    assert json.dumps([role]) == '["image.12"]'


@pytest.mark.parametrize("text", ["", "image", "image.", ".0", "image.x", "image.-1", "a.b.0", "../x.0", "image.0\n"])
def test_a_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a role such as agent\.0"):
        Role(text)
