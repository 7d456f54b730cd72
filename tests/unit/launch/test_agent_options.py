"""The launcher checks every field of an environment's answer about options before it uses it."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from mora_environment.component import Component
from mora_launch.config.agent_config import AgentConfig
from mora_launch.environments import agent_options
from mora_launch.environments.agent_options import CheckedOptions, check_options
from mora_launch.environments.asked_program import Answer
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.environment import Environment
from mora_launch.environments.venvs import Venv
from mora_runtime.errors import EnvironmentFailed, SettingsError
from mora_runtime.wire.messages import PROTOCOL_VERSION

SD3 = checkout_environments()["sd3"]
AGENT = AgentConfig(environment="sd3", kind="sd3", options={"model": "tiny"})
PART = {"name": "vae", "num_parameters": 7, "dtype_nbytes": 4, "trainable": False}
ANSWER = {
    "protocol": PROTOCOL_VERSION, "options": {"height": 32}, "components": [PART], "interface": None,
    "weights": "transformer", "weights_folder": None,
}  # fmt: skip


def check(environment: Environment = SD3) -> CheckedOptions:
    return check_options("image", AGENT, environment)


def answered(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    done = Answer(text, "", 0)
    monkeypatch.setattr(agent_options, "_run", lambda environment, request: done)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in ANSWER.items() if name != key}


def test_an_answer_gives_options_components_and_the_option_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, json.dumps(ANSWER))
    checked = check()
    assert checked.options == {"height": 32}
    assert checked.components == (Component(name="vae", num_parameters=7, dtype_nbytes=4, trainable=False),)
    assert checked.weights == "transformer"


def test_a_refusal_is_passed_on_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, json.dumps({"protocol": PROTOCOL_VERSION, "error": "agents.image.options: no such folder"}))
    with pytest.raises(SettingsError, match=r"^agents.image.options: no such folder$"):
        check()


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ({**ANSWER, "components": [{**PART, "nbytes": 9}]}, r"0\.nbytes: unknown key; did you mean `dtype_nb"),
        ({**ANSWER, "more": 1}, "more: unknown key"),
        (without("components"), "components: field required"),
        ({**ANSWER, "components": [{**PART, "num_parameters": -1}]}, r"0\.num_parameters: input should be"),
        ({**ANSWER, "error": "no"}, "options: unknown key"),
    ],
)
def test_an_invalid_answer_is_an_error_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, answer: Any, named: str
) -> None:
    answered(monkeypatch, json.dumps(answer))
    with pytest.raises(EnvironmentFailed, match=named) as refused:
        check()
    assert "environment sd3: the answer of `python -m mora_env_sd3 options`" in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "got"),
    [({**ANSWER, "protocol": PROTOCOL_VERSION - 1}, PROTOCOL_VERSION - 1), (without("protocol"), "none"), ([], "none")],
    ids=["older", "before versions were told", "no object"],
)
def test_a_runtime_of_another_protocol_version_is_refused_with_the_command_that_updates_it(
    monkeypatch: pytest.MonkeyPatch, answer: Any, got: object
) -> None:
    answered(monkeypatch, json.dumps(answer))
    with pytest.raises(EnvironmentFailed) as refused:
        check()
    said = str(refused.value)
    assert "\n" not in said
    assert f"environment sd3: expected a mora_runtime with protocol version {PROTOCOL_VERSION}" in said
    assert f"got {got}; `./mora env build sd3` installs" in said


def test_an_answer_that_is_not_json_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, "Warning: something\n{}")
    with pytest.raises(EnvironmentFailed, match="expected JSON, got 'Warning: something"):
        check()


def existing(package: str, python: str = sys.executable) -> Environment:
    """An interpreter that exists, with a package."""
    return Environment("mine", package, Path(python), "environments.mine", None)


def refusal(environment: Environment) -> str:
    with pytest.raises(EnvironmentFailed) as refused:
        check(environment)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_package_that_is_not_there_is_refused_in_one_line() -> None:
    said = refusal(existing("mora_no_such_package"))
    assert "environment mine: `python -m mora_no_such_package options` failed" in said
    assert "No module named mora_no_such_package; correct `package` in environments.mine, or install it" in said


def test_a_misspelt_package_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    for name in ("my_env", "tools"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__main__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text("")
    venv = Venv("mine", "3.11", tmp_path / "requirements.lock", (tmp_path,))
    said = refusal(Environment("mine", "my_envs", Path(sys.executable), "mora-env.toml", venv))
    assert "did you mean `my_env`? correct `package` in mora-env.toml" in said


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("import absent_library", "No module named 'absent_library'; add the distribution that contains it to"),
        ("1 / 0", "ZeroDivisionError: division by zero; run `"),
        ("import mora_runtime.absent", r"mora_runtime.absent'; `.*-m pip install .*runtime\[server,training\]`"),
    ],
)
def test_a_package_that_cannot_be_imported_is_refused_with_the_reason_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, advice: str
) -> None:
    (tmp_path / "my_env").mkdir()
    (tmp_path / "my_env" / "__main__.py").write_text(line)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert re.search(advice, refusal(existing("my_env")))


def test_an_interpreter_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("text")
    assert "cannot be run: Permission denied" in refusal(existing("my_env", str(tmp_path / "python")))
