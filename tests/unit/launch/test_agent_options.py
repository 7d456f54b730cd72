"""The launcher checks every field of an environment's answer about options before it uses it."""

import json
import subprocess
from typing import Any

import pytest
from mora_environment.component import Component
from mora_launch.config.agent_config import AgentConfig
from mora_launch.environments import agent_options
from mora_launch.environments.agent_options import check_options
from mora_runtime.errors import EnvironmentFailed, SettingsError

AGENT = AgentConfig(environment="sd3", kind="sd3", options={"model": "tiny"})
PART = {"name": "vae", "num_parameters": 7, "dtype_nbytes": 4, "trainable": False}


def answered(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    done = subprocess.CompletedProcess([], 0, stdout=text, stderr="")
    monkeypatch.setattr(agent_options, "_run", lambda environment, module, request: done)


def test_an_answer_gives_options_and_components(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, json.dumps({"options": {"height": 32}, "components": [PART]}))
    checked = check_options("image", AGENT)
    assert checked.options == {"height": 32}
    assert checked.components == (Component(name="vae", num_parameters=7, dtype_nbytes=4, trainable=False),)


def test_a_refusal_is_passed_on_to_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, json.dumps({"error": "agents.image.options: no such folder"}))
    with pytest.raises(SettingsError, match=r"^agents.image.options: no such folder$"):
        check_options("image", AGENT)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ({"options": {}, "components": [{**PART, "nbytes": 9}]}, r"0\.nbytes: unknown key; did you mean `dtype_nb"),
        ({"options": {}, "components": [], "more": 1}, "more: unknown key"),
        ({"options": {}}, "components: field required"),
        ({"options": {}, "components": [{**PART, "num_parameters": -1}]}, r"0\.num_parameters: input should be"),
        ({"error": "no", "options": {}}, "options: unknown key"),
        ([], r"\(top level\)"),
    ],
)
def test_an_invalid_answer_is_an_error_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, answer: Any, named: str
) -> None:
    answered(monkeypatch, json.dumps(answer))
    with pytest.raises(EnvironmentFailed, match=named) as refused:
        check_options("image", AGENT)
    assert "environment sd3: the answer of mora_env_sd3.options" in str(refused.value)


def test_an_answer_that_is_not_json_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, "Warning: something\n{}")
    with pytest.raises(EnvironmentFailed, match="expected JSON, got 'Warning: something"):
        check_options("image", AGENT)
