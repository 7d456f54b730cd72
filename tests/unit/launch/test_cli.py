"""The command line says what it knows."""

import importlib.util

import pytest
from click.testing import CliRunner
from mora_launch.cli import _BENCHMARKS, cli


@pytest.mark.parametrize("words", [["bench"], ["bench", "--help"], ["bench", "-h"]])
def test_benchmarks_are_listed(words: list[str]) -> None:
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 0
    assert [name for name in _BENCHMARKS if f"\n  {name} " not in shown.output] == []


@pytest.mark.parametrize("name", _BENCHMARKS)
def test_a_listed_benchmark_is_there(name: str) -> None:
    assert importlib.util.find_spec(f"benchmarks.{name}") is not None


def test_an_unknown_benchmark_is_refused_by_name() -> None:
    refused = CliRunner().invoke(cli, ["bench", "ipcc", "--json", "x"])
    assert refused.exit_code == 2
    assert "no benchmark is named `ipcc` (known: ipc, train," in refused.output


def test_every_command_has_a_help_text() -> None:
    for name, command in cli.commands.items():
        shown = CliRunner().invoke(cli, [name, "--help"] if name != "bench" else [name])
        assert shown.exit_code == 0, name
        assert command.help, name
