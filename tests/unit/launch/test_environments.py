"""Environments: what counts as built, and what happens when a build fails or two start at once."""

import io
import json
import multiprocessing
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from mora_launch.environments import venvs
from mora_launch.environments.venvs import STAMP_NAME, Environment, EnvironmentBuildError, ensure

ROOT = Path(__file__).resolve().parents[3]


# Build files of a distribution that pip can install from its folder without an index.
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "thing"
version = "1.0"
"""
BACKEND = """
import pathlib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr("thing.pth", str(pathlib.Path(__file__).parent))
        wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: thing\\nVersion: 1.0\\n")
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    return name
"""


def write_wheel(folder: Path, name: str) -> None:
    """A wheel of one module, as an index would provide it."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def small_checkout(folder: Path, patch: pytest.MonkeyPatch) -> Environment:
    """An environment in its own checkout: a lock of one package, and one distribution of the checkout. pip builds it
    from wheels in a folder instead of an index."""
    distribution = folder / "thing"
    (distribution / "thing").mkdir(parents=True)
    (distribution / "thing" / "__init__.py").write_text("")
    (distribution / "pyproject.toml").write_text(PYPROJECT)
    (distribution / "backend.py").write_text(BACKEND)
    (folder / "wheels").mkdir()
    write_wheel(folder / "wheels", "locked")
    lock = folder / "requirements.lock"
    lock.write_text("locked==1.0\n")
    made = Environment("small", lock, (distribution,))
    patch.setattr(venvs, "ROOT", folder)
    patch.setattr(venvs, "ENVIRONMENTS", {"small": made})
    patch.setattr(venvs, "_find_uv", lambda: None)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        patch.delenv(name)
    patch.setenv("PIP_CONFIG_FILE", os.devnull)
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(folder / "wheels"))
    return made


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    return small_checkout(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Environment, str]:
    """A checkout in which four processes built the environment at once over a half-built one, and their output."""
    folder = tmp_path_factory.mktemp("checkout")
    with pytest.MonkeyPatch.context() as patch:
        made = small_checkout(folder, patch)
        (made.folder / "half-written").mkdir(parents=True)
        assert not made.is_built()
        progress = made.folder.parent / "progress"
        context = multiprocessing.get_context("fork")
        builders = [context.Process(target=build, args=(progress,)) for _ in range(4)]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join(240)
            assert builder.exitcode == 0
        return folder, made, progress.read_text()


@pytest.fixture
def built(checkout: tuple[Path, Environment, str], monkeypatch: pytest.MonkeyPatch) -> tuple[Environment, str]:
    folder, made, said = checkout
    monkeypatch.setattr(venvs, "ROOT", folder)
    return made, said


def build(progress: Path) -> None:
    with open(progress, "a", encoding="utf-8", buffering=1) as file:
        ensure(["small"], progress=file)


def test_pip_builds_an_environment_from_its_lock_and_the_checkout(built: tuple[Environment, str]) -> None:
    environment, _ = built
    script = "import locked, thing, sys; print(thing.__file__, sys.prefix, sep='|')"
    found = subprocess.run([environment.python, "-c", script], capture_output=True, text=True, check=True).stdout
    module, prefix = found.strip().split("|")
    assert Path(module) == environment.distributions[0] / "thing" / "__init__.py", "of the checkout, not a copy"
    assert Path(prefix) == environment.folder
    assert environment.is_built()


def test_a_half_built_environment_is_built_again_from_scratch(built: tuple[Environment, str]) -> None:
    assert not (built[0].folder / "half-written").exists()


def test_four_starts_at_once_build_once(built: tuple[Environment, str]) -> None:
    assert built[1].count("building environment small") == 1
    assert built[1].count("done in") == 1


def test_a_changed_lock_makes_it_outdated(built: tuple[Environment, str]) -> None:
    environment, _ = built
    content = environment.lock_file.read_text()
    environment.lock_file.write_text(content + "six==1.16.0\n")
    assert not environment.is_built()
    environment.lock_file.write_text(content)
    assert environment.is_built()


def test_a_lock_that_the_index_cannot_satisfy_is_named_with_pips_message(environment: Environment) -> None:
    environment.lock_file.write_text("locked==2.0\n")
    with pytest.raises(EnvironmentBuildError, match="environment small could not be built") as caught:
        ensure(["small"], progress=io.StringIO())
    assert "locked==2.0" in str(caught.value)
    assert "requirements.lock" in str(caught.value)
    assert not environment.is_built()


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"lock_hash": 3}', "\x00"])
def test_a_broken_stamp_counts_as_not_built(environment: Environment, stamp: str) -> None:
    environment.python.parent.mkdir(parents=True)
    environment.python.write_text("")
    (environment.folder / STAMP_NAME).write_text(stamp)
    assert not environment.is_built()


def test_a_failed_build_names_the_environment_and_the_reason_and_leaves_no_stamp(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = environment.folder.parent.parent / "uv"
    script.write_text(f"#!{sys.executable}\nimport sys; sys.exit('could not reach the index')")
    script.chmod(0o755)
    monkeypatch.setattr(venvs, "_find_uv", lambda: str(script))
    progress = io.StringIO()
    with pytest.raises(EnvironmentBuildError, match="environment small could not be built") as caught:
        ensure(["small"], progress=progress)
    assert "could not reach the index" in str(caught.value)
    assert "failed" in progress.getvalue()
    assert not environment.is_built()


def test_every_lock_pins_every_package_and_names_no_path_or_url() -> None:
    for environment in (ROOT / "launch", ROOT / "env_sd3", ROOT / "env_opensora"):
        for line in (environment / "requirements.lock").read_text().splitlines():
            name, equals, version = line.partition("==")
            assert all((name, equals, version)), line
            assert not {"/", "+", "@"} & set(line), line


def test_the_described_environments_are_machine_readable() -> None:
    described = json.loads(json.dumps(venvs.describe()))
    assert set(described) == {"control", "sd3", "opensora"}
    assert described["opensora"]["python"].endswith("python")


def test_building_uses_the_base_python_of_the_callers_environment() -> None:
    """The command line's environment has no pip, so using it would lose pip's configuration."""
    host = Path(venvs.HOST_PYTHON)
    assert host.exists()
    assert ROOT / ".venvs" not in host.parents
