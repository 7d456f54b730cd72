"""`examples/Containerfile` and `examples/mora-serve.service` name only commands, options and files that exist.

The image itself is not built here: that needs podman, buildah or docker, and a package index.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from mora_launch.cli.command_line import cli

ROOT = Path(__file__).resolve().parents[3]
CONTAINERFILE = ROOT / "examples" / "Containerfile"
UNIT = ROOT / "examples" / "mora-serve.service"
CHECKOUT = "/opt/mora"


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def only(name: str) -> str:
    (found,) = [rest for each, rest in instructions() if each == name]
    return found


def settings() -> dict[str, str]:
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    found = [(name, value) for name, _, value in (line.partition("=") for line in lines)]
    assert len(found) == len(dict(found)), "a setting is given twice"
    return dict(found)


def parsed(words: Sequence[str]) -> dict[str, object]:
    """The arguments of a command line, which click checks as when it runs."""
    program, *names = words
    assert program in ("./mora", f"{CHECKOUT}/mora")
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.commands[names.pop(0)]
    return command.make_context("mora", names).params


def check_serve(words: Sequence[str]) -> dict[str, object]:
    found = parsed(words)
    assert (ROOT / str(found["config"])).is_file()
    return found


def test_the_container_runs_commands_that_exist() -> None:
    runs = [rest for name, rest in instructions() if name == "RUN"]
    commands = [shlex.split(each) for each in runs if each.startswith("./mora")]
    assert len(commands) == 2
    for command in commands:
        parsed(command)
    found = check_serve([*json.loads(only("ENTRYPOINT")), *json.loads(only("CMD"))])
    assert found["host"] == "0.0.0.0"
    assert str(found["run"]).startswith(only("VOLUME"))
    assert only("EXPOSE") == str(found["port"])
    assert only("STOPSIGNAL") == "SIGTERM"
    assert only("WORKDIR") == CHECKOUT


def test_the_container_is_stopped_later_than_its_work() -> None:
    found = check_serve([*json.loads(only("ENTRYPOINT")), *json.loads(only("CMD"))])
    (seconds,) = re.findall(r"--stop-timeout (\d+)", CONTAINERFILE.read_text())
    assert found["shutdown_timeout_s"] + 10 <= int(seconds)


def test_the_service_runs_a_command_that_exists_and_is_stopped_later_than_its_work() -> None:
    found = settings()
    served = check_serve(shlex.split(found["ExecStart"]))
    assert str(served["run"]).startswith(f"/var/lib/{found['StateDirectory']}/")
    assert served["shutdown_timeout_s"] + 10 <= int(found["TimeoutStopSec"])
    assert (found["Type"], found["KillMode"]) == ("notify", "mixed")
    assert found["WorkingDirectory"] == CHECKOUT


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_service(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(CHECKOUT, str(ROOT)).replace("User=mora", "User=root"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert ours == []
