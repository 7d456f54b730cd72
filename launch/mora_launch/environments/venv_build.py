"""Builds virtual environments in `.venvs/`. Standard library only, for Python 3.10 as well.

An environment whose lock changed is built again from scratch. If only a `pyproject.toml` changed, its distribution is
installed again. Environments with the same lock, Python and torch build share one folder: the first one built owns it,
and the others are links to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from mora_launch.environments.installer import Installer, InstallFailed, find_uv
from mora_launch.environments.venvs import ROOT, RUNTIME, STAMP_NAME, Stamp, Venv, pyproject_hash, torch_backend
from mora_launch.limits import BUILD_LOCK_DEADLINE_S

_PROJECT_NAME = re.compile(r"^\[project\]$[^\[]*?^name\s*=\s*[\"']([^\"']+)", re.MULTILINE)


class EnvironmentBuildError(Exception):
    """An environment could not be built; the message is one line and says which, why, and what to do."""


def ensure(venvs: Sequence[Venv], *, progress: TextIO = sys.stderr) -> None:
    """Build those environments that are missing or outdated. Two processes may call this at once.

    Raises:
        EnvironmentBuildError: a build failed; the environment does not count as built and is built again next time. Or
            this user may not run an interpreter that exists.
    """
    for venv in venvs:
        _check_allowed(venv)
    if all(venv.is_built() for venv in venvs):
        return
    with _build_lock(progress):
        _remove_orphans()
        missing = [venv for venv in venvs if not venv.is_built()]
        for position, venv in enumerate(missing, start=1):
            if not venv.is_built():  # two names of one environment
                _build(venv, f"[{position}/{len(missing)}]", progress)


def _check_allowed(venv: Venv) -> None:
    """Refuse an environment of another user: building it again would not help, and would take it from its owner."""
    refusal = venv.refusal()
    if refusal is not None:
        raise EnvironmentBuildError(
            f"environment {venv.name}: {refusal}; run Mora as the user that built it, or build it with a Python "
            "that every user may run (`rm -r .venvs`, then `./mora env build`)"
        )


@contextlib.contextmanager
def _build_lock(progress: TextIO) -> Iterator[None]:
    """Take the lock that protects all environments; say so while another process holds it."""
    with _lock_file() as handle:
        deadline = time.monotonic() + BUILD_LOCK_DEADLINE_S
        announced = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not announced:
                    print("mora: waiting for another mora that builds the environments", file=progress, flush=True)
                    announced = True
                if time.monotonic() > deadline:
                    raise EnvironmentBuildError(
                        f"another process has held {handle.name} for {BUILD_LOCK_DEADLINE_S:.0f} s; stop it and try "
                        "again"
                    ) from None
                time.sleep(0.2)  # flock cannot wait with a deadline
        yield


def _lock_file() -> TextIO:
    try:
        (ROOT / ".venvs").mkdir(exist_ok=True)
        return open(ROOT / ".venvs" / ".lock", "a+", encoding="utf-8")
    except OSError as error:
        raise EnvironmentBuildError(
            f"environments must be built or updated, but {ROOT / '.venvs'} cannot be written ({error.strerror}); run "
            "`./mora env build` as a user that may write there"
        ) from None


def _remove_orphans() -> None:
    """Remove the folders of environments that were deleted, because each has gigabytes."""
    for path in (ROOT / ".venvs").glob(f"*/{STAMP_NAME}"):
        own = [Path(each) for each in Stamp.read(path.parent).distributions if Path(each) != RUNTIME]
        if own and not any(each.is_dir() for each in own):
            _remove(path.parent)


def _build(venv: Venv, position: str, progress: TextIO) -> None:
    started_s = time.monotonic()
    folder = _folder_with_packages(venv)
    how = "building" if folder is None else "updating" if folder == venv.folder else f"sharing {folder.name} as"
    print(
        f"mora: {position} {how} environment {venv.name} ({torch_backend()} torch) ...",
        end=" ",
        file=progress,
        flush=True,
    )
    try:
        _install(venv, folder)
    except InstallFailed as error:
        print("failed", file=progress, flush=True)
        raise _failure(venv, error) from None
    print(f"done in {time.monotonic() - started_s:.0f} s", file=progress, flush=True)


def _install(venv: Venv, folder: Path | None) -> None:
    """Install what is missing; `folder` is a folder with the packages."""
    installer = Installer(find_uv())
    if folder is None:
        _remove(venv.folder)
        installer.make(venv.folder, venv.python_version)
        installer.install(venv.python, ["-r", str(venv.lock_file)])
        Stamp(venv.packages_hash, {}).write(venv.folder)
    elif folder != venv.folder:
        _remove(venv.folder)
        venv.folder.symlink_to(folder.name)
    missing = venv.missing_distributions()
    if missing:
        words = [word for each in missing for word in ("-e", str(each))]
        installer.install(venv.python, ["--no-deps", *words])
    stamp = Stamp.read(venv.folder)
    added = {str(folder): pyproject_hash(folder) for folder in missing}
    Stamp(stamp.packages_hash, {**stamp.distributions, **added}).write(venv.folder)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _folder_with_packages(venv: Venv) -> Path | None:
    """Find a folder that has the environment's packages and no other distribution of the same name: its own first."""
    others = sorted(path.parent for path in (ROOT / ".venvs").glob(f"*/{STAMP_NAME}"))
    for folder in (venv.folder, *(each for each in others if not each.is_symlink())):
        stamp = Stamp.read(folder)
        has_packages = stamp.packages_hash == venv.packages_hash and (folder / "bin" / "python").exists()
        if has_packages and not _clashes(venv, [Path(each) for each in stamp.distributions]):
            return folder
    return None


def _clashes(venv: Venv, installed: Sequence[Path]) -> bool:
    """Tell whether installing the distributions would replace another one of the same name."""
    theirs = {_project_name(folder) for folder in installed if folder not in venv.distributions and folder.is_dir()}
    if not theirs:
        return False
    ours = {_project_name(folder) for folder in venv.distributions}
    return None in theirs | ours or bool(theirs & ours)


def _project_name(folder: Path) -> str | None:
    # tomllib is not there in Python 3.10
    try:
        found = _PROJECT_NAME.search((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if found is None else re.sub(r"[-_.]+", "-", found[1]).lower()


def _failure(venv: Venv, error: InstallFailed) -> EnvironmentBuildError:
    if not error.output:
        return EnvironmentBuildError(f"environment {venv.name} could not be built: {error}, and try again")
    log = ROOT / ".venvs" / f"{venv.name}.log"
    log.write_text(error.output, encoding="utf-8")
    return EnvironmentBuildError(
        f"environment {venv.name} could not be built: {error}; expected every package of {_shown(venv.lock_file)} to "
        f"be installable for Python {venv.python_version}: correct the lock, the network or the index in pip's "
        f"configuration, and try again (the whole output: {_shown(log)})"
    )


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
