"""docs/configuration.md is what the code says, and the code says what every key means."""

from __future__ import annotations

from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.venvs import ROOT
from mora_launch.explaining.kind_options import ask_kinds
from mora_launch.explaining.page import page
from mora_launch.explaining.sections import all_sections


def test_the_page_is_generated_from_the_code() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == page(list(checkout_environments().values())), "./mora config --markdown > docs/configuration.md"


def test_every_key_has_a_meaning() -> None:
    silent = [section.path_of(key) for section in all_sections() for key in section.keys if not key.meaning]
    for environment in checkout_environments().values():
        for kind, options in ask_kinds(environment).items():
            silent += [f"{kind}: {key.name}" for key in options.keys if not key.meaning]
    assert silent == [], "add a comment to the field"
