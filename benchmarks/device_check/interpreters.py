"""Which interpreter runs what: those of the checkout's environments, or one that plays all of them.

The control environment of the checkout runs every part in the environment that it is made for. Any other Python plays
control and both agents' environments: a shell wrapper gives it the source folders, and the configuration names the
wrapper as an interpreter that exists. Nothing is written into the checkout's environments.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from mora_launch.environments.build import ensure_environments
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.venvs import CONTROL

from benchmarks.device_check.plan import Place
from benchmarks.device_check.source_folders import source_folders

_ENVIRONMENTS = {"image": "sd3", "video": "opensora"}  # of the checkout


@dataclass(frozen=True)
class Interpreters:
    """The interpreters of a check.

    Attributes:
        paths: by place.
        environment_names: of the agents, by agent, as the configuration names them.
        sources: the configuration's `environments`.
    """

    paths: dict[Place, Path]
    environment_names: dict[str, str]
    sources: dict[str, dict[str, str]]

    @property
    def plays_all(self) -> bool:
        """Whether one interpreter plays every environment."""
        return bool(self.sources)


def find_interpreters(folder: Path) -> Interpreters:
    """The interpreters for this process's check.

    Args:
        folder: for a wrapper, if one is needed.
    """
    if Path(sys.prefix).resolve() == CONTROL.folder.resolve():
        environments = checkout_environments()
        ensure_environments(environments[name] for name in _ENVIRONMENTS.values())
        paths = {agent: environments[name].python for agent, name in _ENVIRONMENTS.items()}
        return Interpreters({"control": Path(sys.executable), **paths}, dict(_ENVIRONMENTS), {})  # type: ignore[dict-item]
    wrapper = write_wrapper(folder / "python")
    names = {agent: f"check-{agent}" for agent in _ENVIRONMENTS}
    sources = {
        names[agent]: {"python": str(wrapper), "package": checkout_environments()[name].package}
        for agent, name in _ENVIRONMENTS.items()
    }
    return Interpreters({"control": wrapper, "image": wrapper, "video": wrapper}, names, sources)


def write_wrapper(path: Path) -> Path:
    """A script that runs this process's Python with all source folders of the checkout; it is no link, because Python
    finds its packages by the path under which it is started."""
    python_path = os.pathsep.join(source_folders())
    path.write_text(
        f'#!/bin/sh\nexport PYTHONPATH={shlex.quote(python_path)}\nexec {shlex.quote(sys.executable)} "$@"\n',
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path
