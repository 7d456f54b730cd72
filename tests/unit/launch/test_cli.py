"""The command line lists its commands and benchmarks."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.cli import cli, main
from mora_launch.cli.bench import BENCHMARKS
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments import env_list
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.environment import Environment
from mora_launch.environments.venvs import CONTROL, ROOT
from mora_launch.jobs import doctor_roles

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


@pytest.mark.parametrize("code", [0, 1])
def test_env_check_runs_the_check_of_the_package_and_ends_as_it_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    (tmp_path / "checked.py").write_text(
        f"import json, sys; json.dump(sys.argv[1:], open({str(tmp_path / 'words')!r}, 'w')); sys.exit({code})"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    environment = Environment("mine", "checked", Path(sys.executable), "here", None)
    monkeypatch.setattr("mora_launch.environments.catalog.environment_at", lambda text: environment)
    monkeypatch.setattr("sys.argv", ["mora", "env", "check", "mine", "a_kind", "--json", "out.json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert json.loads((tmp_path / "words").read_text()) == ["check", "a_kind", "--json", "out.json"]


def test_doctor_tells_interpreter_prefix_and_torch_of_every_role(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    mine = {"mine": {"python": sys.executable, "package": "any"}}
    text = (ROOT / "configs" / "tiny.yaml").read_text().replace("environment: opensora", "environment: mine")
    config.write_text(f"{text}\nenvironments: {json.dumps(mine)}\n")
    monkeypatch.setattr("sys.argv", ["mora", "doctor", "--config", str(config)])
    with pytest.raises(SystemExit):
        main()
    said = "".join(capsys.readouterr().out.split())
    for role, environment, python in (
        ("image.0", "sd3", checkout_environments()["sd3"].python),
        ("video.0", "mine", Path(sys.executable)),
        ("coordinator.0", "control", CONTROL.python),
    ):
        prefix = f"role{role}(environment{environment}):{python},Python3.11."
        assert prefix in said
        assert f"prefix{python.parents[1]},torch2." in said[said.index(prefix) :]


def test_doctor_says_how_to_build_an_environment_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = replace(checkout_environments()["sd3"], python=Path("/absent/python"))
    monkeypatch.setattr(doctor_roles, "environments_of", lambda config: {**checkout_environments(), "sd3": absent})
    monkeypatch.setattr("sys.argv", ["mora", "doctor", "--config", str(ROOT / "configs" / "tiny.yaml")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "role image.0 (environment sd3): /absent/python: expected a Python interpreter" in " ".join(said.split())
    assert "-> ./mora env build sd3" in said


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
