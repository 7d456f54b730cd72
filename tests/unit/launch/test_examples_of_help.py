"""Every command's `--help` ends with an example, which its own parser accepts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from mora_launch.cli import cli
from mora_launch.environments.venvs import ROOT

_BEGIN = "Example: ./mora "


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words; and the command line itself."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))
    if not isinstance(command, click.Group) or not words:
        yield words, command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the examples name."""
    for run in ("shapes", "tiny-rounds"):
        (tmp_path / "runs" / run).mkdir(parents=True)
    (tmp_path / "clips.jsonl").touch()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = list(commands(cli))


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[" ".join(words) or "mora" for words, _ in COMMANDS])
def test_help_ends_with_an_example_that_is_accepted(
    folder: Path, words: tuple[str, ...], command: click.Command
) -> None:
    epilog = command.epilog or ""
    assert epilog.startswith(_BEGIN), f"mora {' '.join(words)} --help has no example"
    example = shlex.split(epilog.removeprefix(_BEGIN))
    assert example[: len(words)] == list(words)
    group: click.Command = cli
    while isinstance(group, click.Group):
        group = group.commands[example.pop(0)]
    context = group.make_context("mora", example)
    assert context.params
    for file in [word for word in example if word.startswith("configs/")]:
        assert (folder / file).exists(), file
