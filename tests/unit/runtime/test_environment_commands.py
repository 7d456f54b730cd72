"""`python -m PACKAGE`: the commands that every environment has."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_environment.options_command import answer_request
from mora_environment.server import AgentBuilder
from mora_runtime.errors import EnvironmentFailed, SettingsError
from mora_runtime.wire.messages import PROTOCOL_VERSION
from mora_training.training_settings import GroupSettings, OptimizerAgentSettings, TrainingServerSettings
from toy_environment.__main__ import KINDS
from toy_environment.broken.__main__ import KINDS as BROKEN_KINDS

HERE = Path(__file__).parent
PACKAGE = "toy_environment"


def command(*words: str, request: object = None, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command of the toy environment; importing a module in `without` fails."""
    script = (
        f"import runpy, sys\nsys.path.insert(0, {str(HERE)!r})\n"
        f"for name in {without!r}:\n    sys.modules[name] = None\n"
        f"sys.argv[1:] = {words!r}\nrunpy.run_module({PACKAGE!r}, run_name='__main__', alter_sys=True)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(request), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def answered(kind: str, **options: Any) -> dict[str, Any]:
    return answer_request(KINDS, PACKAGE, {"kind": kind, "options": options, "source": "agents.a.options"})


def test_options_and_kinds_need_no_torch() -> None:
    request = {"kind": "paint", "options": {"weights": "absent"}, "source": "agents.a.options"}
    done = command("options", request=request, without=("torch", "toy_environment.agent"))
    assert json.loads(done.stdout)["options"] == {"weights": "absent", "side": 4}, done.stderr
    done = command("kinds", without=("torch", "toy_environment.agent"))
    assert json.loads(done.stdout) == list(KINDS), done.stderr


def test_the_answer_tells_interface_components_and_weights(tmp_path: Path) -> None:
    found = answered("paint", weights=str(tmp_path))
    assert found["interface"]["takes"]["pictures"] == {
        "modality": "images", "height": 4, "width": 4, "num_frames": None,
    }  # fmt: skip
    (component,) = found["components"]
    assert component == {
        "name": "brush", "num_parameters": 3, "dtype_nbytes": 4, "trainable": True, "is_unloaded": False
    }  # fmt: skip
    assert (found["weights"], found["weights_folder"]) == ("weights", str(tmp_path))
    assert answered("paint", weights="absent")["weights_folder"] is None


def test_a_kind_that_tells_nothing_is_answered_with_nulls() -> None:
    told = {"components": [], "interface": None, "weights": None, "weights_folder": None, "missing": []}
    assert answered("plain") == {"protocol": PROTOCOL_VERSION, "options": {}, **told}


def test_trained_weights_replace_those_of_the_options(tmp_path: Path) -> None:
    request = {
        "kind": "paint",
        "options": {"weights": "absent"},
        "source": "agents.a.options",
        "weights": str(tmp_path),
    }
    found = answer_request(KINDS, PACKAGE, request)
    assert (found["options"]["weights"], found["weights_folder"]) == (str(tmp_path), str(tmp_path))


def test_a_kind_without_an_option_for_weights_refuses_trained_ones() -> None:
    request = {"kind": "plain", "options": {}, "source": "agents.a.options", "weights": "somewhere"}
    refused = answer_request(KINDS, PACKAGE, request)
    assert "expected a kind that can load trained weights, got `plain`" in refused["error"]
    assert refused["protocol"] == PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("pint", {}, "agents.a.options: unknown kind of agent `pint`; did you mean `paint`?"),
        ("paint", {"weights": "w", "sid": 3}, "sid: unknown key; did you mean `side`?"),
        ("paint", {"weights": "w", "side": 65}, "agents.a.options: side 65: expected at most 64"),
    ],
)
def test_options_that_do_not_fit_are_answered_with_an_error(kind: str, options: dict[str, Any], said: str) -> None:
    assert said in answered(kind, **options)["error"]


def test_a_wrong_option_of_the_weights_is_answered_with_an_error() -> None:
    request = {"kind": "without_option", "options": {}, "source": "agents.a.options"}
    error = answer_request(BROKEN_KINDS, PACKAGE, request)["error"]
    assert error.startswith("toy_environment: kind `without_option`: its table entry says weights=`wights`")


def test_tiny_prints_options_that_load_the_models(tmp_path: Path) -> None:
    done = command("tiny", "paint", str(tmp_path / "models"))
    options = json.loads(done.stdout.splitlines()[-1])
    agent = AgentBuilder(KINDS, PACKAGE).make("paint", options, torch.device("cpu"), source="test")
    assert agent.module() is not None


def test_a_task_gets_its_data_by_name(tmp_path: Path) -> None:
    (tmp_path / "palette").write_text("red")
    done = command("tiny", "paint", str(tmp_path / "m"), "--task", "colours", "--palette", str(tmp_path / "palette"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m" / "palette.txt").read_text() == "red"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tiny", "pint", "models"), "unknown kind of agent `pint`; did you mean `paint`?"),
        (("tiny", "plain", "models"), "kind `plain` has no maker of tiny models"),
        (("tiny", "paint", "models", "--task", "colour"), "no tiny task `colour`; did you mean `colours`?"),
        (("tiny", "paint", "models", "--task", "colours"), "`colours` expects --palette FOLDER, got none"),
        (("tiny", "paint", "models", "--palette", "p"), "random tiny models take no data, got --palette"),
        (("tiny", "paint", "models", "--task", "colours", "p"), "expected data as `--NAME FOLDER`, got p"),
        (("kinds", "--all"), "unrecognized arguments: --all"),
        (("optoins",), "invalid choice: 'optoins'"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = command(*(str(tmp_path / word) if word == "models" else word for word in words))
    assert done.returncode == 2
    assert said in done.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("without_module", r"kind `without_module`: its builder: `toy_environment.absent:Agent` cannot be imported"),
        (
            "without_method",
            r"kind `without_method`: .* needs a method `initial_noise` marked with @remote; it has d",
        ),
        ("without_option", r"kind `without_option`: its table entry says weights=`wights`"),
    ],
)
def test_a_wrong_table_entry_is_refused_by_the_server(kind: str, said: str) -> None:
    settings = TrainingServerSettings(role="a.0", name="a", run_dir=".", agents={"a": {"kind": kind}})
    builder = AgentBuilder(BROKEN_KINDS, PACKAGE)
    builder.import_kinds({kind})
    with pytest.raises(EnvironmentFailed, match=rf"^{PACKAGE}: {said}"):
        builder.build(settings)


def test_a_server_refuses_an_unknown_kind() -> None:
    settings = TrainingServerSettings(role="a.0", name="a", run_dir=".", agents={"a": {"kind": "pint"}})
    with pytest.raises(SettingsError, match=r"agents\.a\.kind: unknown kind of agent `pint`; did you mean `paint`"):
        AgentBuilder(KINDS, PACKAGE).build(settings)


def test_a_kind_without_weights_is_not_trained() -> None:
    group = GroupSettings(rank=0, world_size=1, rendezvous="file:///absent")
    settings = TrainingServerSettings(
        role="a.0", name="a", run_dir=".", agents={"a": {"kind": "plain"}},
        training=OptimizerAgentSettings(group=group),
    )  # fmt: skip
    with pytest.raises(EnvironmentFailed, match="kind `plain` cannot be trained: its entry in KINDS has no `weights`"):
        AgentBuilder(KINDS, PACKAGE).build(settings)
