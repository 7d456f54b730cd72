"""What `mora test` runs: lint and types, and test folders by environment, in pieces that share no state.

Pieces share only `models/`, which is made once under a lock; ports and run directories are each test's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mora_launch.environments.catalog import Environments, checkout_environments
from mora_launch.environments.environment import Environment
from mora_launch.environments.venvs import CONTROL, ROOT

BUILD = "environments"  # the stage that builds the agents' environments
_BUILD_S = 200
LONG = "long"  # the marker of tests that repeat what others guard, and take minutes
_LINTED = ("runtime", "env_*", "data", "trainer", "launch", "tests", "benchmarks", "examples", "mora")
_TYPED = (
    "runtime/mora_runtime", "runtime/mora_training", "runtime/mora_environment", "data/mora_data",
    "trainer/mora_trainer",
    "launch/mora_launch",
)  # fmt: skip


# What also runs on Python 3.10: the runtime, and what the `mora` script imports.
_TYPED_FOR_OLD_PYTHON = (
    "runtime/mora_runtime", "runtime/mora_training", "runtime/mora_environment",
    *(f"launch/mora_launch/environments/{name}.py" for name in ("venvs", "installer", "venv_build")),
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One command of `mora test`.

    Attributes:
        expected_s: seconds on two idle cores, without long tests; the longest stages start first.
        after: names of stages that must have passed before this one starts, where they run too.
    """

    name: str
    command: tuple[str, ...]
    expected_s: int
    after: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Tests:
    """Test paths that run in one process of one environment."""

    environment: str
    python: Path
    paths: tuple[str, ...]
    expected_s: int
    after: tuple[str, ...] = (BUILD,)

    def stage(self, chosen: Sequence[str], options: Sequence[str], *, with_long: bool) -> Stage:
        """The command that runs the chosen paths; a cache of its own keeps stages from writing into each other's."""
        tier = [] if with_long else ["-m", f"not {LONG}"]
        name = f"{self.environment}: {' '.join(chosen)}"
        cache = f"cache_dir=.pytest_cache/{self.environment}-{self.paths[0].replace('/', '-')}"
        words = (str(self.python), "-m", "pytest", "-q", "-o", cache, *tier, *chosen, *options)
        return Stage(name, words, self.expected_s, self.after)

    def chosen(self, selected: Sequence[str]) -> list[str]:
        """Those of the selected paths that belong here; all that exist where nothing is selected."""
        present = [path for path in self.paths if (ROOT / path).exists()]
        if not selected:
            return present
        folders = [(ROOT / path).resolve() for path in present]
        return [
            path
            for path in selected
            if any(Path(path.partition("::")[0]).resolve().is_relative_to(folder) for folder in folders)
        ]


_OF_CONTROL = (
    (
        (
            "tests/unit/house",
            "tests/unit/runtime",
            "tests/unit/data",
            "tests/unit/trainer",
            "tests/unit/launch",
            "tests/unit/evaluation",
            "tests/unit/bench",
        ),
        190,
    ),
    (("tests/hostile",), 140),
    (("tests/integration/runtime", "tests/gpu"), 130),
    (("tests/integration/training",), 180),
    (("tests/integration/serving",), 300),
    (("tests/integration/rounds",), 180),
    (("tests/integration/evaluation",), 240),
    (("tests/integration/weights",), 120),
    (("tests/integration/device",), 60),
)
_OF_CONTROL_ALONE = (  # of toy agents, which run in the control environment
    (("tests/integration/chain",), 120),
    (("tests/chaos",), 140),
)
# Of an environment, besides `tests/unit/<its name>`.
_MORE_TESTS = {"opensora": ("tests/golden",), "svd": ("tests/golden_seine",), "vbench": ("tests/golden_vbench",)}


def all_tests(environments: Environments) -> list[Tests]:
    """The tests of the control environment and of every environment of the checkout."""
    ours = [Tests(CONTROL.name, CONTROL.python, paths, expected_s) for paths, expected_s in _OF_CONTROL]
    alone = [Tests(CONTROL.name, CONTROL.python, paths, expected_s, ()) for paths, expected_s in _OF_CONTROL_ALONE]
    theirs = [
        Tests(name, each.python, (f"tests/unit/{name}", *_MORE_TESTS.get(name, ()), "tests/hostile"), 60)
        for name, each in environments.items()
    ]
    return [*ours, *alone, *theirs]


def lint(environments: Environments) -> list[Stage]:
    """Formatting and types of all code."""
    python = str(CONTROL.python)
    old_python = ("--python-version", "3.10", "--cache-dir", ".mypy_cache/3.10")
    linted = sorted(path.name for name in _LINTED for path in ROOT.glob(name))
    return [
        Stage("ruff", (python, "-m", "ruff", "check", *linted), 2),
        Stage("ruff format", (python, "-m", "ruff", "format", "--check", "--diff", "--quiet", *linted), 2),
        Stage("mypy", (python, "-m", "mypy", *_TYPED), 60),
        Stage("mypy for Python 3.10", (python, "-m", "mypy", *old_python, *_TYPED_FOR_OLD_PYTHON), 30),
        *(_typed_environment(python, each) for each in environments.values()),
    ]


def builds(environments: Environments) -> list[Stage]:
    """The stage that builds the environments, if one is missing: stages that do not need them start meanwhile."""
    if all(each.venv is None or each.venv.is_built() for each in environments.values()):
        return []
    return [Stage(BUILD, (str(CONTROL.python), "-m", "mora_launch", "env", "build"), _BUILD_S)]


def _typed_environment(python: str, environment: Environment) -> Stage:
    """Types of an environment's code, as the libraries of that environment have them."""
    name, folder = environment.name, environment.package_folder
    assert folder is not None, f"{environment.told_by}: no distribution has the package {environment.package}"
    words = ("--python-executable", str(environment.python), "--cache-dir", f".mypy_cache/{name}")
    return Stage(f"mypy {name}", (python, "-m", "mypy", *words, str(folder.relative_to(ROOT))), 60, (BUILD,))


def stages(selected: Sequence[str], options: Sequence[str], *, with_long: bool) -> list[Stage]:
    """All stages, or those of the selected paths; the longest first."""
    environments = checkout_environments()
    found = [] if selected else [*builds(environments), *lint(environments)]
    for tests in all_tests(environments):
        if chosen := tests.chosen(selected):
            found.append(tests.stage(chosen, options, with_long=with_long))
    return sorted(found, key=lambda stage: -stage.expected_s)
