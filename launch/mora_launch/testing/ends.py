"""`mora test --ends`: tests the runtime with the lowest and with the newest Python and packages that it accepts.

Each end is a virtual environment in a temporary folder. The runtime with its extras is installed in it, without a lock.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mora_launch.environments.installer import Installer, InstallFailed, find_uv
from mora_launch.environments.interpreter import Interpreter, ask_interpreter
from mora_launch.environments.venv_build import EnvironmentBuildError
from mora_launch.environments.venvs import ROOT, RUNTIME
from mora_launch.testing.run_tests import run_all
from mora_launch.testing.side_by_side import Ended
from mora_launch.testing.stages import Stage

_TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis")
_RUNTIME = ROOT / "tests" / "integration" / "runtime"
_TESTS = {
    "unit": ("tests/unit/runtime",),
    "hostile": ("tests/hostile",),
    "remote module": tuple(
        str((_RUNTIME / f"test_{name}.py").relative_to(ROOT)) for name in ("remote_module", "spawn", "graph_options")
    ),
}
_EXAMPLE = "examples/two_environments.py"
_SHOWN = ("torch", "numpy", "pyzmq", "msgpack", "psutil", "pydantic", "safetensors", "deepspeed", "peft")
_COUNTS = re.compile(r"\d+ (?:passed|failed|skipped|deselected|errors?)")


@dataclass(frozen=True)
class End:
    """One end of what the runtime accepts.

    Args:
        options: of `uv pip install`, which choose the versions.
    """

    name: str
    python_version: str
    options: tuple[str, ...]


ENDS = (End("lowest", "3.10", ("--resolution", "lowest-direct")), End("newest", "3.13", ()))


def run_ends(console: Console) -> int:
    """Build both ends, run the tests in each and the example of a remote module between them, and print one table.

    Returns:
        0 if everything passed.

    Raises:
        EnvironmentBuildError: an end could not be built.
    """
    with tempfile.TemporaryDirectory(prefix="mora-ends-") as folder:
        pythons = [_build(end, Path(folder) / end.name, console) for end in ENDS]
        told = [ask_interpreter(python) for python in pythons]
        ended = run_all(list(_stages(pythons)), 1, console)
    console.print(_table(told, ended))
    return 0 if all(each.exit_code == 0 for each in ended) else 1


def _build(end: End, folder: Path, console: Console) -> Path:
    console.print(f"building the {end.name} end: Python {end.python_version} ...")
    uv = find_uv()
    if uv is None:
        raise EnvironmentBuildError("`mora test --ends` chooses the lowest versions with uv; install uv, and try again")
    installer, python = Installer(uv), folder / "bin" / "python"
    try:
        installer.make(folder, end.python_version)
        installer.install(python, [*end.options, "-e", f"{RUNTIME}[server,training]"])
        installer.install(python, _TEST_TOOLS)
    except InstallFailed as error:
        raise EnvironmentBuildError(f"the {end.name} end could not be built: {error}\n{error.output}") from None
    return python


def _stages(pythons: Sequence[Path]) -> Iterator[Stage]:
    for end, python in zip(ENDS, pythons, strict=True):
        for name, paths in _TESTS.items():
            words = (str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths)
            yield Stage(_key(name, end), words, 60)
    for end, python, other in zip(ENDS, pythons, reversed(pythons), strict=True):
        yield Stage(_key("example", end), (str(python), _EXAMPLE, str(other)), 10)


def _key(what: str, end: End) -> str:
    return f"{what}: {end.name}"


def _table(told: Sequence[Interpreter], ended: Sequence[Ended]) -> Table:
    table = Table("", *(f"{end.name} end" for end in ENDS), box=None, pad_edge=False)
    table.add_row("Python", *(each.version for each in told))
    for name in _SHOWN:
        table.add_row(name, *(each.distributions.get(name, "-") for each in told))
    results = {each.stage.name: each for each in ended}
    for name in _TESTS:
        table.add_row(f"{name} tests", *(_result(results[_key(name, end)]) for end in ENDS))
    table.add_row("example, server at the other end", *(_result(results[_key("example", end)]) for end in ENDS))
    return table


def _result(ended: Ended) -> str:
    lines = ended.output.strip().splitlines()
    counts = ", ".join(_COUNTS.findall(lines[-1])) if lines else ""
    said = counts or (lines[-1] if lines and ended.exit_code == 0 else f"failed with {ended.exit_code}")
    return f"{said} ({ended.spent_s:.0f} s)"
