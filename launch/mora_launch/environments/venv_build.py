"""Builds virtual environments in `.venvs/`, with uv or pip. Standard library only, for Python 3.10 as well.

An environment whose lock changed is built again from scratch. If only a `pyproject.toml` changed, its distribution is
installed again. Environments with the same lock, Python and torch build share one folder: the first one built owns it,
and the others are links to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from mora_launch.environments.venvs import ROOT, STAMP_NAME, Stamp, Venv, pyproject_hash, torch_backend
from mora_launch.limits import BUILD_LOCK_DEADLINE_S, BUILD_STEP_DEADLINE_S

# The command line itself runs inside an environment without pip, so the Python beneath that one builds the others.
HOST_PYTHON: str = getattr(sys, "_base_executable", sys.executable)
_MAX_REASON_LENGTH = 400
_PROJECT_NAME = re.compile(r"^\[project\]$[^\[]*?^name\s*=\s*[\"']([^\"']+)", re.MULTILINE)


class EnvironmentBuildError(Exception):
    """An environment could not be built; the message is one line and says which, why, and what to do."""


def ensure(venvs: Sequence[Venv], *, progress: TextIO = sys.stderr) -> None:
    """Build those environments that are missing or outdated. Two processes may call this at once.

    Raises:
        EnvironmentBuildError: a build failed; the environment does not count as built and is built again next time.
    """
    if all(venv.is_built() for venv in venvs):
        return
    with _build_lock(progress):
        missing = [venv for venv in venvs if not venv.is_built()]
        for position, venv in enumerate(missing, start=1):
            if not venv.is_built():  # two names of one environment
                _build(venv, f"[{position}/{len(missing)}]", progress)


@contextlib.contextmanager
def _build_lock(progress: TextIO) -> Iterator[None]:
    """Take the lock that protects all environments; say so while another process holds it."""
    (ROOT / ".venvs").mkdir(exist_ok=True)
    with open(ROOT / ".venvs" / ".lock", "a+", encoding="utf-8") as handle:
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
    except EnvironmentBuildError:
        print("failed", file=progress, flush=True)
        raise
    print(f"done in {time.monotonic() - started_s:.0f} s", file=progress, flush=True)


def _install(venv: Venv, folder: Path | None) -> None:
    """Install what is missing; `folder` is a folder with the packages."""
    uv = _find_uv()
    if folder is None:
        _remove(venv.folder)
        if uv is not None:
            _install_lock_with_uv(venv, uv)
        else:
            _install_lock_with_pip(venv)
        Stamp(venv.packages_hash, {}).write(venv.folder)
    elif folder != venv.folder:
        _remove(venv.folder)
        venv.folder.symlink_to(folder.name)
    missing = venv.missing_distributions()
    _install_distributions(venv, missing, uv)
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
    theirs = {_project_name(folder) for folder in installed if folder not in venv.distributions}
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


def _install_lock_with_uv(venv: Venv, uv: str) -> None:
    variables = uv_variables()
    python = _host_python(venv.python_version) or venv.python_version  # uv finds an interpreter of a version itself
    _run(venv, [uv, "venv", "-q", "--python", python, str(venv.folder)], variables)
    backend = [] if "UV_FIND_LINKS" in variables or torch_backend() == "cuda" else ["--torch-backend", "cpu"]
    # Without bytecode every process compiles torch, diffusers and transformers again when it starts, which takes
    # seconds if site-packages is read-only or PYTHONDONTWRITEBYTECODE is set. pip compiles by default.
    words = ["--compile-bytecode", *backend, "-r", str(venv.lock_file)]
    _run(venv, [uv, "pip", "install", "-q", "--python", str(venv.python), *words], variables)


def _install_lock_with_pip(venv: Venv) -> None:
    python = _host_python(venv.python_version)
    if python is None:
        raise EnvironmentBuildError(
            f"environment {venv.name} needs Python {venv.python_version}; found {sys.version.split()[0]} and no "
            f"python{venv.python_version} on PATH; install Python {venv.python_version} or uv, and try again"
        )
    _run(venv, [python, "-m", "venv", str(venv.folder)], _install_variables())
    install = [str(venv.python), "-m", "pip", "install", "-q", "-r", str(venv.lock_file)]
    _run(venv, install, _install_variables())


def _install_distributions(venv: Venv, folders: Sequence[Path], uv: str | None) -> None:
    if not folders:
        return
    words = ["--no-deps", *(word for folder in folders for word in ("-e", str(folder)))]
    if uv is not None:
        _run(venv, [uv, "pip", "install", "-q", "--python", str(venv.python), *words], uv_variables())
    else:
        _run(venv, [str(venv.python), "-m", "pip", "install", "-q", *words], _install_variables())


def _host_python(version: str) -> str | None:
    """Return a Python of this version: the running one, or one on PATH; None if neither fits."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return HOST_PYTHON
    found = shutil.which(f"python{version}")
    # a shim of pyenv exists for versions that it does not run
    return found if found is not None and _succeeds([found, "-c", ""]) else None


def _find_uv() -> str | None:
    """Return uv from PATH or, installed with pip, from `.venvs/.tools`; None if neither works: pip is then used."""
    found = shutil.which("uv")
    if found is not None:
        return found
    tools = ROOT / ".venvs" / ".tools"
    uv = tools / "bin" / "uv"
    if not uv.exists():
        steps = ([HOST_PYTHON, "-m", "venv", str(tools)], [str(tools / "bin" / "pip"), "install", "-q", "uv"])
        for step in steps:
            if not _succeeds(step):
                return None
    return str(uv)


def _succeeds(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=BUILD_STEP_DEADLINE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _install_variables() -> dict[str, str]:
    # By default DeepSpeed compiles its operators at install time. They are not needed: torch.optim.AdamW replaces them.
    variables = {**os.environ, "DS_BUILD_OPS": "0"}
    if torch_backend() == "cpu":
        variables["DS_ACCELERATOR"] = "cpu"
    return variables


def uv_variables() -> dict[str, str]:
    """Return `_install_variables` and pip's configuration as variables for uv, which reads neither pip.conf nor
    PIP_*."""
    listing = subprocess.run(
        [HOST_PYTHON, "-m", "pip", "config", "list"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_STEP_DEADLINE_S,
    ).stdout
    settings: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        settings.setdefault(key.rpartition(".")[2], value.strip().strip("'\""))
    names = {"find-links": "UV_FIND_LINKS", "index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
    translated = {uv: settings[pip] for pip, uv in names.items() if settings.get(pip) and uv not in os.environ}
    if "UV_FIND_LINKS" in translated:
        translated["UV_FIND_LINKS"] = ",".join(translated["UV_FIND_LINKS"].split())
    return {**_install_variables(), **translated}


def _run(venv: Venv, command: Sequence[str], variables: Mapping[str, str]) -> None:
    log = ROOT / ".venvs" / f"{venv.name}.log"
    try:
        done = subprocess.run(
            command, env=dict(variables), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            cwd=ROOT, timeout=BUILD_STEP_DEADLINE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EnvironmentBuildError(
            f"environment {venv.name} could not be built: `{' '.join(command)}` took more than "
            f"{BUILD_STEP_DEADLINE_S:.0f} s; check the network or the package index, then try again"
        ) from None
    if done.returncode == 0:
        return
    log.write_text(f"{' '.join(command)}\n{done.stdout}{done.stderr}", encoding="utf-8")
    raise EnvironmentBuildError(
        f"environment {venv.name} could not be built: {_reason(done.stderr or done.stdout)}; expected every package "
        f"of {_shown(venv.lock_file)} to be installable for Python {venv.python_version}: correct the lock, the "
        f"network or the index in pip's configuration, and try again (the whole output: {_shown(log)})"
    )


def _reason(output: str) -> str:
    """The end of an installer's output, in one line."""
    words = " ".join(output.split()) or "it gave no reason"
    return words if len(words) <= _MAX_REASON_LENGTH else "..." + words[-_MAX_REASON_LENGTH:]


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
