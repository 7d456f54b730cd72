"""The documentation names only files and classes that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = {
    "mora_runtime": "runtime",
    "mora_training": "runtime",
    "mora_environment": "runtime",
    "mora_data": "data",
    "mora_trainer": "trainer",
    "mora_launch": "launch",
    "mora_env_sd3": "env_sd3",
    "mora_env_opensora": "env_opensora",
    "mora_env_svd": "env_svd",
}
RENAMES = ROOT / "docs" / "adr" / "0007-rooms-of-the-runtime.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FULL_PATHS = (  # pages in which every path starts at the root of the tree
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/extending.md",
    "docs/paper.md",
    "docs/rounds.md",
    "docs/training.md",
)
FILES_OF_EVERY_ENVIRONMENT = {"mora-env.toml"}  # the pages name them without a folder
_WORD = re.compile(r"`([\w./-]+)`")  # one word, not a command, a pattern or `<run>/...`
_SUFFIXES = (".py", ".md", ".toml", ".yaml", ".lock")


def text_of(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def named_paths(page: Path) -> set[str]:
    """Words in backticks that are paths: they contain a slash, or have a suffix of the tree's files."""
    words = set(_WORD.findall(text_of(page)))
    return {
        word for word in words if (word.endswith(_SUFFIXES) or "/" in word) and not word.startswith(("/", "./mora"))
    } - FILES_OF_EVERY_ENVIRONMENT


@pytest.mark.parametrize("name", FULL_PATHS)
def test_every_path_that_the_page_names_exists(name: str) -> None:
    named = named_paths(ROOT / name)
    assert named, "the page names no path; check that this test still finds them"
    assert not sorted(path for path in named if not (ROOT / path).exists())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]+)(?:#[\w-]+)?\)", text_of(page))
    relative = [link for link in links if not re.match(r"https?://", link)]
    assert not [link for link in relative if not (page.parent / link).exists()]


def expanded(name: str) -> list[str]:
    """`a.{b, c}` as `a.b` and `a.c`."""
    before, brace, inside = name.partition("{")
    return [name] if not brace else [before + part.strip() for part in inside.rstrip("}").split(",")]


def new_names() -> list[str]:
    """Dotted names in the second column of the tables of renames."""
    cells = [line.split("|")[2] for line in RENAMES.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    quoted = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    return [full for name in quoted if name.startswith("mora_") for full in expanded(name)]


def is_there(name: str) -> bool:
    """True if a dotted name is a module or package of the tree, or is defined at the top level of one."""
    parts = name.split(".")
    path = ROOT / PACKAGES[parts[0]] / Path(*parts)
    if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
        return True
    module = path.parent.with_suffix(".py")
    return module.is_file() and parts[-1] in defined_in(module)


def defined_in(module: Path) -> set[str]:
    """Classes, functions and constants at the top level of a module."""
    names: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def test_every_new_name_of_the_renames_exists() -> None:
    names = new_names()
    assert len(names) > 120
    assert not [name for name in names if not is_there(name)]


def test_a_name_that_does_not_exist_is_noticed() -> None:
    assert is_there("mora_runtime.rpc.session.Session")
    assert not is_there("mora_runtime.rpc.session.Node")
    assert not is_there("mora_runtime.rpc.node")
