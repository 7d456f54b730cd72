"""`mora-env.toml`, the file that makes a folder an environment."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated

from mora_runtime.errors import SettingsError
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.schema import Settings, nearest_name, read_settings
from pydantic import Field

from mora_launch.limits import MAX_MANIFEST_NBYTES

MANIFEST = "mora-env.toml"
_PROJECT = "pyproject.toml"

EnvironmentName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
PackageName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", max_length=200)]


class Manifest(Settings):
    """The content of `mora-env.toml`; paths are relative to the file."""

    name: EnvironmentName
    package: PackageName  # `python -m PACKAGE` is `mora_environment.main(KINDS)`
    python: Annotated[str, Field(pattern=r"^3\.[1-9][0-9]$")]  # such as 3.11; the runtime needs 3.10 or later
    lock: str = "requirements.lock"
    distributions: Annotated[tuple[str, ...], Field(min_length=1)] = (".",)  # installed with the runtime


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a folder, and that the files that it names exist.

    Raises:
        SettingsError: there is none, it is not valid, or a file is missing; the message is one line.
    """
    path = folder / MANIFEST
    try:
        content = tomllib.loads(read_foreign(path, MAX_MANIFEST_NBYTES).decode())
    except FileNotFoundError:
        raise SettingsError(_missing(folder)) from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or too many levels
        raise SettingsError(f"{path}: is not TOML: {error}") from None
    try:
        manifest = read_settings(Manifest, content, source=str(path))
    except SettingsError as error:
        _, *faults = str(error).splitlines()
        raise SettingsError(f"{path}: {'; '.join(fault.strip() for fault in faults)}") from None
    _check_files(path, manifest)
    return manifest


def _check_files(path: Path, manifest: Manifest) -> None:
    if not os.path.isfile(path.parent / manifest.lock):  # False also for a name that is too long
        found = nearest_name(manifest.lock, [each.name for each in path.parent.iterdir() if each.is_file()])
        raise SettingsError(f"{path}: lock: no file {path.parent / manifest.lock}{_hint(found)}")
    for name in manifest.distributions:
        if not os.path.isfile(path.parent / name / _PROJECT):
            found = nearest_name(name, [str(each.parent.relative_to(path.parent)) for each in _projects(path.parent)])
            raise SettingsError(f"{path}: distributions: expected {path.parent / name / _PROJECT}, it is not there"
                                f"{_hint(found)}")  # fmt: skip


def _projects(folder: Path) -> list[Path]:
    return sorted(path for pattern in (_PROJECT, f"*/{_PROJECT}") for path in folder.glob(pattern))


def _missing(folder: Path) -> str:
    """Say that a folder is no environment, with the nearest folder that is one."""
    near = [folder.parent, *folder.glob("*"), *folder.parent.glob("*")]
    found = nearest_name(str(folder), [str(each) for each in near if (each / MANIFEST).is_file()])
    what = f"has no {MANIFEST}" if folder.is_dir() else "is not a folder"
    return f"{folder} {what}; expected the folder of an environment{_hint(found)}"


def _hint(found: str | None) -> str:
    return f"; did you mean `{found}`?" if found else ""
