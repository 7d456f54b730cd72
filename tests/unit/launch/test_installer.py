"""How uv is asked to install packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from mora_launch.environments import installer
from mora_launch.environments.installer import Installer


@pytest.mark.parametrize("is_forbidden", [False, True])
def test_all_modules_are_compiled_only_where_python_must_not_write_bytecode(
    monkeypatch: pytest.MonkeyPatch, is_forbidden: bool
) -> None:
    commands: list[list[str]] = []

    def noted(command: list[str], variables: Any) -> None:
        commands.append(command)

    monkeypatch.setattr(installer, "_run", noted)
    monkeypatch.setattr(installer, "uv_variables", dict)
    monkeypatch.setattr(sys, "dont_write_bytecode", is_forbidden)
    Installer("uv").install(Path("python"), ["-r", "requirements.lock"])
    assert ("--compile-bytecode" in commands[0]) == is_forbidden
    assert commands[0][-2:] == ["-r", "requirements.lock"]
