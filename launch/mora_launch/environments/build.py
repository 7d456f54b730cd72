"""Makes environments ready to use: builds those that the launcher builds, and checks interpreters that exist."""

from __future__ import annotations

import os
from collections.abc import Iterable

from mora_runtime.errors import EnvironmentFailed

from mora_launch.environments.environment import Environment
from mora_launch.environments.venv_build import ensure


def ensure_environments(environments: Iterable[Environment]) -> None:
    """Build the environments that are missing or outdated.

    Raises:
        EnvironmentBuildError: a build failed.
        EnvironmentFailed: an interpreter that should exist cannot be run.
    """
    environments = list(environments)
    for environment in environments:
        if environment.venv is None and not os.access(environment.python, os.X_OK):
            raise EnvironmentFailed(f"{environment.told_by}.python: {environment.python} cannot be executed")
    ensure([environment.venv for environment in environments if environment.venv is not None])
