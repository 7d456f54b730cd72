"""The command line lists its commands and benchmarks."""

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.cli import cli, main
from mora_launch.cli.bench import BENCHMARKS
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments import env_list
from mora_launch.environments.venvs import ROOT

CONFIG = ROOT / "configs" / "tiny.yaml"


@pytest.mark.parametrize("words", [["bench"], ["bench", "--help"], ["bench", "-h"]])
def test_benchmarks_are_listed(words: list[str]) -> None:
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 0
    assert [name for name in BENCHMARKS if f"\n  {name} " not in shown.output] == []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_listed_benchmark_exists(name: str) -> None:
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


@pytest.mark.parametrize("command", ["serve", "generate"])
def test_a_checkpoint_to_serve_becomes_part_of_the_configuration(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainConfig] = []
    monkeypatch.setattr("mora_launch.serving.command.serve", lambda config, **_: seen.append(config) or 0)
    monkeypatch.setattr(
        "mora_launch.generation.command.generate", lambda options, config, *_, **__: seen.append(config)
    )
    words = {"serve": ["serve", str(CONFIG)], "generate": ["generate", "text-to-video", "--prompt", "p", "-o", "o.mp4"]}
    monkeypatch.chdir(tmp_path)
    extra = ["--config", str(CONFIG)] if command == "generate" else []
    done = CliRunner().invoke(cli, [*words[command], *extra, "--checkpoint", "some/run:8"])
    assert done.exit_code == 0, done.output
    assert seen[0].serving.checkpoint == str(tmp_path / "some" / "run:8")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["env", "list"], 130, "mora: ended in the middle"),
        (["nothing"], 2, "No such command 'nothing'"),
        (["generate", "-o", "out.mp4"], 2, "give a TASK, or --repeat FILE.json"),
        (["generate", "--repeat", "a.json", "-o", "out.mp4", "--seed", "2"], 2, "--seed does not go with --repeat"),
        (["generate", "edit", "--repeat", "a.json", "-o", "out.mp4"], 2, "task does not go with --repeat"),
        (["--help"], 0, "generate"),
    ],
    ids=["Ctrl-C", "unknown", "incomplete", "repeat-seed", "repeat-task", "help"],
)
def test_how_a_command_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt("ended in the middle")

    monkeypatch.setattr(env_list, "describe", interrupted)
    monkeypatch.setattr("sys.argv", ["mora", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert said in "".join(capsys.readouterr())
