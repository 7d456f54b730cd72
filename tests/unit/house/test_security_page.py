"""SECURITY.md names tests that exist, and every hostile test names an attacker of its table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
HOSTILE_TESTS = sorted((ROOT / "tests" / "hostile").rglob("test_*.py"))


def attackers() -> list[str]:
    """First column of the table "Who attacks", without the text in brackets."""
    table = PAGE.partition("## Who attacks")[2].partition("## Promises")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")][1:]
    return [re.sub(r"\(.*\)| of a run", "", row).strip().lower() for row in rows]


def named_tests() -> list[str]:
    """Every test that the page names; a bare name is in the folder of the path before it."""
    found, folder = [], ""
    for name in re.findall(r"`(?:python )?((?:tests/[\w/]*/)?(?:\w+\.py|(?<=/)))(?: URL)?`", PAGE):
        folder = name.rpartition("/")[0] if "/" in name else folder
        found.append(f"{folder}/{name.rpartition('/')[2]}")
    return found


def test_every_test_that_the_page_names_exists() -> None:
    names = named_tests()
    assert len(names) > 40
    assert not [name for name in names if not (ROOT / name).exists()]


def test_every_promise_has_a_test() -> None:
    promises = PAGE.partition("## Promises")[2].partition("## Limits")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 25
    assert not [row for row in rows if "tests/" not in row]


@pytest.mark.parametrize("path", HOSTILE_TESTS, ids=lambda path: path.stem)
def test_every_hostile_test_names_its_attacker(path: Path) -> None:
    said = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").lower().partition(":")[0]
    assert any(attacker.partition(" with")[0] in said for attacker in attackers()), (said, attackers())
