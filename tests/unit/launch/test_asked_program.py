"""A program of another environment that is asked for an answer cannot hang, flood or confuse the launcher."""

import os
import time
from pathlib import Path

import pytest
from mora_launch.config.agent_config import AgentConfig
from mora_launch.environments import asked_program
from mora_launch.environments.agent_options import check_options
from mora_launch.environments.asked_program import ask_program
from mora_launch.environments.environment import Environment
from mora_launch.environments.interpreter import ask_interpreter
from mora_runtime.errors import EnvironmentFailed


def program(folder: Path, script: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def refusal(python: Path) -> str:
    environment = Environment("mine", "my_env", python, "environments.mine", None)
    with pytest.raises(EnvironmentFailed) as refused:
        check_options("first", AgentConfig(environment="mine", kind="k"), environment)
    return str(refused.value)


def test_request_answer_complaints_and_exit_code_pass(tmp_path: Path) -> None:
    python = program(tmp_path, "cat; echo oh >&2; exit 3")
    assert ask_program([str(python)], "hello", asked="x") == ("hello", "oh\n", 3)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (r"printf '\377\376'", "expected JSON, got '\ufffd\ufffd'"),
        ("printf '%0100000d' 0 | tr 0 '['", "expected JSON, got '[[["),
        ("printf '\\377' >&2; exit 1", "failed: \ufffd; run"),
        ("yes", "expected an answer of at most 4194304 bytes, got more"),
    ],
)
def test_a_strange_answer_is_refused(tmp_path: Path, script: str, said: str) -> None:
    assert said in refusal(program(tmp_path, script))


@pytest.mark.parametrize("script", [r"printf '\377\376'", "printf '%0100000d' 0 | tr 0 '['", "echo null", "exit 1"])
def test_a_strange_answer_is_no_interpreter(tmp_path: Path, script: str) -> None:
    with pytest.raises(EnvironmentFailed, match=r"expected a Python interpreter of version 3\.10 or later"):
        ask_interpreter(program(tmp_path, script))


@pytest.mark.parametrize("then", ["wait", "exec >&- 2>&-; wait", "exec yes >&2"])
def test_a_program_without_answer_is_refused_in_time_and_everything_that_it_started_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(asked_program, "CHECK_DEADLINE_S", 1.0)
    python = program(tmp_path, f"trap '' TERM\nsleep 1000 & echo $! > {tmp_path}/child\n{then}")
    assert "environment mine: `python -m my_env options` gave no answer within 1 s" in refusal(python)
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}")
    end_s = time.monotonic() + 10
    while child.exists() and "\nState:\tZ" not in (child / "status").read_text():  # its new parent collects it
        assert time.monotonic() < end_s
        os.sched_yield()
