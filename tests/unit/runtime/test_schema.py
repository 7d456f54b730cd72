"""Settings refuse unknown keys and offer the nearest existing name."""

from typing import Any, Literal

import pytest
from mora_runtime.errors import SettingsError
from mora_runtime.schema import Settings, nearest_name, read_settings
from pydantic import Field, ValidationError, model_validator


class Inner(Settings):
    learning_rate: float = 1e-5
    mode: Literal["lora", "full"] = "lora"


class Outer(Settings):
    name: str
    num_steps: int = Field(default=1, ge=1)
    inner: Inner = Inner()
    several: dict[str, Inner] = Field(default_factory=dict)
    listed: list[Inner] = Field(default_factory=list)
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Outer":
        if self.name == "bad":
            raise ValueError("name: choose another")
        return self


def fault(data: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings(Outer, data, source="run.yaml")
    return str(caught.value)


def nested(num_levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(num_levels):
        found = [found]
    return found


def test_a_check_of_several_keys_is_told_without_the_whole_content() -> None:
    assert fault({"name": "bad"}) == "run.yaml is not a valid Outer:\n  name: choose another"


def test_good_settings_are_read_and_cannot_be_changed() -> None:
    settings = read_settings(Outer, {"name": "a", "inner": {"learning_rate": 1}}, source="run.yaml")
    assert (settings.name, settings.inner.learning_rate, settings.inner.mode) == ("a", 1.0, "lora")
    with pytest.raises(ValidationError, match="frozen"):
        settings.name = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"name": "a", "num_step": 2}, "  num_step: unknown key; did you mean `num_steps`?"),
        ({"name": "a", "zzzz": 2}, "  zzzz: unknown key"),
        ({"name": "a", "inner": {"learning_rat": 1}}, "inner.learning_rat: unknown key; did you mean `learning_rate`?"),
        ({"name": "a", "several": {"x": {"mod": 1}}}, "  several.x.mod: unknown key; did you mean `mode`?"),
        ({"name": "a", "listed": [{"moed": 1}]}, "  listed.0.moed: unknown key; did you mean `mode`?"),
        ({}, "  name: field required"),
        ({"name": "a", "num_steps": 0}, "  num_steps: input should be greater than or equal to 1, got 0"),
        ({"name": "a", "inner": {"learning_rate": float("nan")}}, "learning_rate: input should be a finite number"),
        ({"name": "a", "inner": {"mode": "lroa"}}, "inner.mode: input should be 'lora' or 'full', got 'lroa'"),
        ({"name": "a", "names": "b"}, "  names: input should be a valid list, got 'b'"),
        ({"name": "a", "inner": []}, "  inner: input should be a mapping, got []"),
        ({"name": "a", "several": "b"}, "  several: input should be a mapping, got 'b'"),
        ({"name": "a", "num_steps": nested(100_000)}, "num_steps: input should be a valid integer, got a list with"),
    ],
)  # fmt: skip
def test_an_error_names_the_place_the_value_and_the_nearest_name(data: dict[str, Any], text: str) -> None:
    assert fault(data).startswith("run.yaml is not a valid Outer:\n")
    assert text in fault(data)


def test_all_errors_are_reported_at_once() -> None:
    assert len(fault({"num_steps": 0, "inner": {"mode": 3}}).splitlines()) == 4


def test_a_long_value_is_shown_shortened() -> None:
    assert "x" * 80 not in fault({"name": "a", "num_steps": "x" * 1000})


def test_the_nearest_name_is_found_or_none() -> None:
    assert nearest_name("loar", ["lora", "full"]) == "lora"
    assert nearest_name("qqq", ["lora", "full"]) is None
