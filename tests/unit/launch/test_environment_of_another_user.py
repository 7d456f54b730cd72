"""Environments that this user may not run or write are told in one sentence, and not built again."""

import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mora_launch.environments import venv_build, venvs
from mora_launch.environments.catalog import environments_of
from mora_launch.environments.tiny_makers import TinyMakers
from mora_launch.environments.tiny_models import ensure_tiny_models
from mora_launch.environments.venv_build import EnvironmentBuildError, ensure
from mora_launch.environments.venvs import Stamp, Venv
from mora_launch.jobs import doctor
from mora_runtime.errors import EnvironmentFailed
from rich.console import Console
from test_tiny_models import config

NOT_ROOT = 65534


@contextmanager
def as_another_user(closed: Path) -> Iterator[None]:
    """Run a block without the right to enter or write a folder, also where the tests run as root."""
    mode = stat.S_IMODE(closed.stat().st_mode)
    is_root = os.geteuid() == 0
    closed.chmod(0o700 if is_root else 0o000)
    if is_root:
        os.seteuid(NOT_ROOT)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        closed.chmod(mode)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="mora-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def venv(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Venv:
    """An environment that counts as built, with a link to an interpreter in a folder of its own."""
    for module in (venvs, venv_build):
        monkeypatch.setattr(module, "ROOT", open_folder)
    (open_folder / "requirements.lock").write_text("locked==1.0\n")
    interpreter = open_folder / "pythons" / "python3"
    interpreter.parent.mkdir()
    interpreter.write_text("#!/bin/sh\n")
    interpreter.chmod(0o755)
    made = Venv("small", "3.11", open_folder / "requirements.lock", ())
    made.python.parent.mkdir(parents=True)
    made.python.symlink_to(interpreter)
    Stamp(made.packages_hash, {}).write(made.folder)
    assert made.is_built()
    return made


def refusal(venv: Venv) -> str:
    progress = io.StringIO()
    with pytest.raises(EnvironmentBuildError) as refused:
        ensure([venv], progress=progress)
    assert progress.getvalue() == "", "nothing was built"
    return str(refused.value)


def test_an_interpreter_in_a_closed_folder_is_told_with_its_place_and_what_to_do(venv: Venv, open_folder: Path) -> None:
    with as_another_user(open_folder / "pythons"):
        said = refusal(venv)
    assert f"(a link to {open_folder}/pythons/python3): Permission denied; run Mora as the user that built it" in said
    ensure([venv])


def test_an_interpreter_that_is_not_executable_is_told(venv: Venv, open_folder: Path) -> None:
    (open_folder / "pythons" / "python3").chmod(0o644)
    assert "it is not executable; run Mora as the user that built it" in refusal(venv)


def test_an_interpreter_that_is_gone_is_no_matter_of_rights(venv: Venv, open_folder: Path) -> None:
    (open_folder / "pythons" / "python3").unlink()
    assert venv.refusal() is None
    assert not venv.is_built()


def test_doctor_tells_it(venv: Venv, open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CONTROL", venv)
    with as_another_user(open_folder / "pythons"):
        found = next(doctor._machine())
    assert found.what.startswith("environment small: user id")
    assert found.fix == "run Mora as the user that built it"


def test_environments_that_must_be_built_in_a_folder_that_cannot_be_written_are_refused(
    venv: Venv, open_folder: Path
) -> None:
    venv.lock_file.write_text("locked==2.0\n")
    blocked = open_folder / ".venvs" / ".lock"
    blocked.mkdir()  # opening a folder for writing fails for every user
    assert f"{open_folder / '.venvs'} cannot be written (Is a directory); run `./mora env build` as a user" in refusal(
        venv
    )


def test_tiny_models_that_must_be_made_in_a_folder_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file, not a folder")
    with pytest.raises(EnvironmentFailed, match=r"tiny_models: the models in .* its folder cannot be written"):
        ensure_tiny_models(config(tmp_path / "models" / "tiny", name="tiny"), Console(quiet=True))


def test_an_interpreter_that_the_system_cannot_run_is_told_by_the_maker_of_tiny_models(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("no program")
    (tmp_path / "python").chmod(0o755)
    source = f"environments={{mine: {{python: {tmp_path / 'python'}, package: any}}}}"
    made = config(tmp_path, source, "agents.image.environment=mine", name="tiny")
    with pytest.raises(EnvironmentFailed, match=r"environment mine: .*/python cannot be run: Exec format error"):
        TinyMakers().run(environments_of(made)["mine"], ["tiny", "sd3", str(tmp_path / "x")], None)
