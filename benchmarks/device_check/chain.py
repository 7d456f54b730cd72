"""The configurations that the check runs: the tiny chain on the device, and the published one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mora_launch.config.foreign_yaml import read_yaml
from mora_launch.environments.venvs import ROOT

from benchmarks.device_check.interpreters import Interpreters

_TINY = ROOT / "configs" / "tiny.yaml"
_PUBLISHED = ROOT / "configs" / "mora-osp-8xh100.yaml"
_TINY_MODELS = "models/tiny"


def write_tiny_chain(file: Path, interpreters: Interpreters, device: str) -> Path:
    """Write the tiny chain with both agents on the device, in bfloat16.

    An interpreter that plays all environments makes its own models in a folder next to `file`, so that it does not
    replace those of the checkout.
    """
    content = _with_environments(read_yaml(_TINY), interpreters)
    for agent in content["agents"].values():
        agent["devices"] = [device]
        agent["options"]["dtype"] = "bfloat16"
    if interpreters.plays_all:
        content = _replaced(content, _TINY_MODELS, str(file.parent / "models"))
    return _write(file, content)


def write_published_chain(file: Path, interpreters: Interpreters) -> Path:
    """Write the published chain; it is planned and not run."""
    return _write(file, _with_environments(read_yaml(_PUBLISHED), interpreters))


def _with_environments(content: Any, interpreters: Interpreters) -> dict[str, Any]:
    for name, agent in content["agents"].items():
        agent["environment"] = interpreters.environment_names[name]
    return {**content, "environments": interpreters.sources}


def _replaced(value: Any, old: str, new: str) -> Any:
    """The value with another beginning of every text that begins with `old`."""
    if isinstance(value, dict):
        return {key: _replaced(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, old, new) for each in value]
    return new + value.removeprefix(old) if isinstance(value, str) and value.startswith(old) else value


def _write(file: Path, content: dict[str, Any]) -> Path:
    file.write_text(json.dumps(content), encoding="utf-8")  # which is YAML too
    return file
