"""Virtual environments: what counts as built, which share a folder, and what happens when a build fails."""

import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from mora_launch.environments import env_list, installer, venv_build, venvs
from mora_launch.environments.venv_build import EnvironmentBuildError, ensure
from mora_launch.environments.venvs import STAMP_NAME, Stamp, Venv

ROOT = Path(__file__).resolve().parents[3]


# Build files of a distribution that pip can install from its folder without an index.
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "{name}"
version = "1.0"
"""
BACKEND = """
import pathlib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name, info = "{name}-1.0-py3-none-any.whl", "{name}-1.0.dist-info"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr("{name}.pth", str(pathlib.Path(__file__).parent))
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
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


def write_distribution(folder: Path, name: str) -> Path:
    """A folder that pip installs in editable mode without an index: one empty module, in a folder of its own."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text(PYPROJECT.format(name=name))
    (folder / "backend.py").write_text(BACKEND.format(name=name))
    return folder


def small_checkout(folder: Path, patch: pytest.MonkeyPatch) -> Venv:
    """An environment in its own checkout: a lock of one package, and one distribution of the checkout. pip builds it
    from wheels in a folder instead of an index."""
    distribution = write_distribution(folder / "thing", "thing")
    (folder / "wheels").mkdir()
    write_wheel(folder / "wheels", "locked")
    lock = folder / "requirements.lock"
    lock.write_text("locked==1.0\n")
    use_checkout(folder, patch)
    return Venv("small", venvs.PYTHON_VERSION, lock, (distribution,))


def use_checkout(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have environments built in this checkout with pip, from its wheels alone."""
    patch.setattr(venvs, "ROOT", folder)
    patch.setattr(venv_build, "ROOT", folder)
    patch.setattr(installer, "ROOT", folder)
    patch.setattr(venv_build, "find_uv", lambda: None)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        patch.delenv(name)
    patch.setenv("PIP_CONFIG_FILE", os.devnull)
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(folder / "wheels"))


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Venv:
    return small_checkout(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Venv, str]:
    """A checkout in which four processes built the environment at once over a half-built one, and their output."""
    folder = tmp_path_factory.mktemp("checkout")
    with pytest.MonkeyPatch.context() as patch:
        made = small_checkout(folder, patch)
        (made.folder / "half-written").mkdir(parents=True)
        assert not made.is_built()
        progress = made.folder.parent / "progress"
        context = multiprocessing.get_context("fork")
        builders = [context.Process(target=build, args=(made, progress)) for _ in range(4)]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join(240)
            assert builder.exitcode == 0
        return folder, made, progress.read_text()


@pytest.fixture
def built(checkout: tuple[Path, Venv, str], monkeypatch: pytest.MonkeyPatch) -> tuple[Venv, str]:
    folder, made, said = checkout
    use_checkout(folder, monkeypatch)
    return made, said


def build(environment: Venv, progress: Path) -> None:
    with open(progress, "a", encoding="utf-8", buffering=1) as file:
        ensure([environment], progress=file)


def test_pip_builds_an_environment_from_its_lock_and_the_checkout(built: tuple[Venv, str]) -> None:
    environment, _ = built
    script = "import locked, thing, sys; print(thing.__file__, sys.prefix, sep='|')"
    found = subprocess.run([environment.python, "-c", script], capture_output=True, text=True, check=True).stdout
    module, prefix = found.strip().split("|")
    assert Path(module) == environment.distributions[0] / "thing" / "__init__.py", "of the checkout, not a copy"
    assert Path(prefix) == environment.folder
    assert environment.is_built()


def test_a_half_built_environment_is_built_again_from_scratch(built: tuple[Venv, str]) -> None:
    assert not (built[0].folder / "half-written").exists()


def test_four_starts_at_once_build_once(built: tuple[Venv, str]) -> None:
    assert built[1].count("building environment small") == 1
    assert built[1].count("done in") == 1


def test_a_changed_lock_makes_it_outdated(built: tuple[Venv, str]) -> None:
    environment, _ = built
    content = environment.lock_file.read_text()
    environment.lock_file.write_text(content + "six==1.16.0\n")
    assert not environment.is_built()
    environment.lock_file.write_text(content)
    assert environment.is_built()


def test_a_lock_that_the_index_cannot_satisfy_is_named_with_pips_message(environment: Venv) -> None:
    environment.lock_file.write_text("locked==2.0\n")
    with pytest.raises(EnvironmentBuildError, match="environment small could not be built") as caught:
        ensure([environment], progress=io.StringIO())
    said = str(caught.value)
    assert "\n" not in said
    assert "locked==2.0" in said
    assert "of requirements.lock to be installable for Python 3.11: correct the lock" in said
    assert "locked==2.0" in (environment.folder.parent / "small.log").read_text()
    assert not environment.is_built()


@pytest.mark.parametrize(
    "stamp", ["", "{", "[]", '{"packages_hash": 3}', '{"packages_hash": "", "distributions": []}', "\x00"]
)
def test_a_broken_stamp_counts_as_not_built(environment: Venv, stamp: str) -> None:
    environment.python.parent.mkdir(parents=True)
    environment.python.write_text("")
    (environment.folder / STAMP_NAME).write_text(stamp)
    assert not environment.is_built()


def test_a_failed_build_names_the_environment_and_the_reason_and_leaves_no_stamp(
    environment: Venv, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = environment.folder.parent.parent / "uv"
    script.write_text(f"#!{sys.executable}\nimport sys; sys.exit('could not reach the index')")
    script.chmod(0o755)
    monkeypatch.setattr(venv_build, "find_uv", lambda: str(script))
    progress = io.StringIO()
    with pytest.raises(EnvironmentBuildError, match="environment small could not be built") as caught:
        ensure([environment], progress=progress)
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
    described = json.loads(json.dumps(env_list.describe()))
    assert set(described) == {"control", "sd3", "opensora", "svd", "vbench"}
    assert described["opensora"]["python"].endswith("python")


def in_environment(environment: Venv, script: str) -> str:
    command = [str(environment.python), "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def built_as(environment: Venv) -> str:
    """Build it; return what was said about it."""
    progress = io.StringIO()
    ensure([environment], progress=progress)
    return progress.getvalue()


def test_environments_with_the_same_packages_share_a_folder_and_have_the_distributions_of_both(
    built: tuple[Venv, str],
) -> None:
    environment, _ = built
    other_thing = write_distribution(environment.folder.parent.parent / "other", "other")
    other = replace(environment, name="second", distributions=(other_thing,))
    assert not other.is_built()
    assert "sharing small as environment second" in built_as(other)
    assert other.folder.is_symlink()
    assert other.is_built()
    assert environment.is_built()
    assert in_environment(other, "import locked, thing, other, sys; print(sys.prefix)") == str(other.folder)


def test_an_environment_leaves_a_shared_folder_when_its_lock_changes(built: tuple[Venv, str]) -> None:
    environment, _ = built
    copy = environment.lock_file.with_name("third.lock")
    copy.write_text(environment.lock_file.read_text())
    other = replace(environment, name="third", lock_file=copy)
    ensure([other], progress=io.StringIO())
    write_wheel(environment.folder.parent.parent / "wheels", "more")
    copy.write_text("locked==1.0\nmore==1.0\n")
    assert "building environment third" in built_as(other)
    assert not other.folder.is_symlink()
    assert in_environment(other, "import more, thing") == ""
    assert environment.is_built()
    with pytest.raises(subprocess.CalledProcessError):
        in_environment(environment, "import more")


def test_two_distributions_of_one_name_share_no_folder(built: tuple[Venv, str]) -> None:
    environment, _ = built
    copy = write_distribution(environment.folder.parent.parent / "copy", "thing")
    other = replace(environment, name="fourth")
    assert venv_build._folder_with_packages(other) == environment.folder
    assert venv_build._folder_with_packages(replace(other, distributions=(copy,))) is None


def test_the_folder_of_an_environment_that_was_deleted_is_removed_by_the_next_build(environment: Venv) -> None:
    def pretend(name: str, distribution: Path) -> Venv:
        made = replace(environment, name=name, distributions=(distribution,))
        made.python.parent.mkdir(parents=True)
        made.python.write_text("")
        Stamp(made.packages_hash, {str(distribution): venvs.pyproject_hash(distribution)}).write(made.folder)
        return made

    checkout = environment.folder.parent.parent
    gone = pretend("gone", write_distribution(checkout / "gone", "gone"))
    stays = pretend("stays", write_distribution(checkout / "stays", "stays"))
    assert gone.is_built()
    assert stays.is_built()
    shared = Stamp(stays.packages_hash, {**Stamp.read(stays.folder).distributions, str(checkout / "gone"): "x"})
    shared.write(stays.folder)
    shutil.rmtree(checkout / "gone")
    environment.lock_file.write_text("locked==2.0\n")
    with pytest.raises(EnvironmentBuildError):
        ensure([environment], progress=io.StringIO())
    assert not gone.folder.exists()
    assert stays.folder.exists(), "an environment that shared its folder was deleted, it was not"
    assert venv_build._folder_with_packages(stays) is None, "the lock has changed"


def test_a_deleted_environment_that_shared_a_folder_leaves_it_usable(built: tuple[Venv, str], tmp_path: Path) -> None:
    environment, _ = built
    other = replace(environment, name="short", distributions=(write_distribution(tmp_path / "short", "short"),))
    ensure([other], progress=io.StringIO())
    shutil.rmtree(tmp_path / "short")
    assert venv_build._folder_with_packages(environment) == environment.folder


def test_a_changed_pyproject_is_installed_again_without_the_lock(built: tuple[Venv, str]) -> None:
    environment, _ = built
    mark = environment.folder / "still the same folder"
    mark.touch()
    pyproject = environment.distributions[0] / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + "# changed\n")
    assert not environment.is_built()
    assert "updating environment small" in built_as(environment)
    assert environment.is_built()
    assert mark.exists()


def test_building_uses_the_base_python_of_the_callers_environment() -> None:
    """The command line's environment has no pip, so using it would lose pip's configuration."""
    host = Path(installer.HOST_PYTHON)
    assert host.exists()
    assert ROOT / ".venvs" not in host.parents
