"""`mora test`: the one way to run the tests. Lint and types, then each environment's tests with its own interpreter."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mora_launch.environments import venvs
from mora_launch.environments.venvs import ENVIRONMENTS, ROOT

_LINTED = ("runtime", "env_sd3", "env_opensora", "data", "trainer", "launch", "tests", "benchmarks", "mora")
_TYPED = (
    "runtime/mora_runtime", "runtime/mora_training", "runtime/mora_environment", "data/mora_data",
    "trainer/mora_trainer",
    "launch/mora_launch",
)  # fmt: skip


@dataclass(frozen=True)
class TestStage:
    """Test folders that run in one environment; fast stages stand first."""

    environment: str
    folders: tuple[str, ...]


STAGES = (
    TestStage(
        "control",
        ("tests/unit/house", "tests/unit/runtime", "tests/unit/trainer", "tests/unit/launch", "tests/unit/bench"),
    ),
    TestStage("control", ("tests/hostile",)),
    TestStage("sd3", ("tests/unit/sd3", "tests/hostile")),
    TestStage("opensora", ("tests/unit/opensora", "tests/golden", "tests/hostile")),
    TestStage("control", ("tests/integration", "tests/chaos", "tests/gpu")),
)


def run_tests(selected: Sequence[str], arguments: Sequence[str], console: Console) -> int:
    """Run all stages, or those that hold the selected paths; `arguments` go to pytest. Returns 0 when all passed."""
    venvs.ensure(list(ENVIRONMENTS))
    results = [] if selected else _lint()
    for stage in STAGES:
        folders = _chosen(stage, selected)
        if folders:
            command = [str(ENVIRONMENTS[stage.environment].python), "-m", "pytest", "-q", *folders, *arguments]
            console.print(f"--- {stage.environment}: {' '.join(folders)}", style="bold")
            results.append((f"{stage.environment} {' '.join(folders)}", _run(command)))
    failed = [name for name, code in results if code != 0]
    console.print("failed: " + ", ".join(failed) if failed else f"all {len(results)} stages passed")
    return 1 if failed or not results else 0


def _lint() -> list[tuple[str, int]]:
    python = str(ENVIRONMENTS["control"].python)
    linted = [name for name in _LINTED if (ROOT / name).exists()]
    return [
        ("ruff", _run([python, "-m", "ruff", "check", *linted])),
        ("ruff format", _run([python, "-m", "ruff", "format", "--check", "--diff", "--quiet", *linted])),
        ("mypy", _run([python, "-m", "mypy", *_TYPED])),
    ]


def _chosen(stage: TestStage, selected: Sequence[str]) -> list[str]:
    present = [folder for folder in stage.folders if (ROOT / folder).is_dir()]
    if not selected:
        return present
    wanted = [Path(path.partition("::")[0]).resolve() for path in selected]
    return [
        path
        for path, place in zip(selected, wanted, strict=True)
        if any(place.is_relative_to((ROOT / folder).resolve()) for folder in present)
    ]


def _run(command: Sequence[str]) -> int:
    return subprocess.run(command, cwd=ROOT, check=False).returncode
