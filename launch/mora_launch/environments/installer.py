"""Installs packages with uv, or with pip where there is no uv. Standard library only, for Python 3.10 as well."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mora_launch.environments.venvs import ROOT, torch_backend
from mora_launch.limits import BUILD_STEP_DEADLINE_S

# The command line itself runs inside an environment without pip, so the Python beneath that one builds the others.
HOST_PYTHON: str = getattr(sys, "_base_executable", sys.executable)
_MAX_REASON_LENGTH = 400
_NAMES_OF_UV = {  # of pip's settings
    "find-links": "UV_FIND_LINKS",
    "index-url": "UV_DEFAULT_INDEX",
    "cert": "SSL_CERT_FILE",
    "constraint": "UV_CONSTRAINT",
}


class InstallFailed(Exception):
    """A step failed; the message is the reason in one line.

    Attributes:
        output: everything that the installer said; empty if it was not run.
    """

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.output = output


class Installer:
    """Makes virtual environments and installs packages into them.

    Args:
        uv: the program; None = pip.
    """

    def __init__(self, uv: str | None) -> None:
        self._uv = uv

    def make(self, folder: Path, version: str) -> None:
        """Make a virtual environment with a Python of this version.

        Raises:
            InstallFailed: there is no such Python.
        """
        python = host_python(version)
        if self._uv is not None:  # finds an interpreter of a version itself
            _run([self._uv, "venv", "-q", "--python", python or version, str(folder)], uv_variables())
        elif python is not None:
            _run([python, "-m", "venv", str(folder)], install_variables())
        else:
            raise InstallFailed(
                f"needs Python {version}; found {sys.version.split()[0]}, and no python{version} on PATH or "
                f"of pyenv; install Python {version} or uv"
            )

    def install(self, python: Path, words: Sequence[str]) -> None:
        """Install requirements, given as words of pip's command line, into the environment of an interpreter.

        Raises:
            InstallFailed: they cannot be installed.
        """
        if self._uv is None:
            _run([str(python), "-m", "pip", "install", "-q", *words], install_variables())
            return
        variables = uv_variables()
        backend = [] if "UV_FIND_LINKS" in variables or torch_backend() == "cuda" else ["--torch-backend", "cpu"]
        # The first import of a module writes its bytecode, so compiling all modules, of which few are ever imported, is
        # wasted: half a minute of processor time. If Python must not write it, every process would compile torch,
        # diffusers and transformers again when it starts. pip compiles by default.
        compiles = ["--compile-bytecode"] if sys.dont_write_bytecode else []
        options = ["-q", "--python", str(python), *compiles, *backend]
        _run([self._uv, "pip", "install", *options, *words], variables)


def host_python(version: str) -> str | None:
    """Return a Python of this version: the running one, one on PATH, or one of pyenv; None if there is none."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return HOST_PYTHON
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    found = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")))]
    # pyenv puts programs on PATH for versions that it does not run
    return next((python for python in found if python is not None and _succeeds([python, "-c", ""])), None)


def find_uv() -> str | None:
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


def install_variables() -> dict[str, str]:
    """Return the environment variables of an installer."""
    # By default DeepSpeed compiles its operators at install time. They are not needed: torch.optim.AdamW replaces them.
    variables = {**os.environ, "DS_BUILD_OPS": "0"}
    if torch_backend() == "cpu":
        variables["DS_ACCELERATOR"] = "cpu"
    return variables


def uv_variables() -> dict[str, str]:
    """Return `install_variables` and pip's configuration as variables for uv, which reads neither pip.conf nor
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
    translated = {uv: settings[pip] for pip, uv in _NAMES_OF_UV.items() if settings.get(pip) and uv not in os.environ}
    if "UV_FIND_LINKS" in translated:
        translated["UV_FIND_LINKS"] = ",".join(translated["UV_FIND_LINKS"].split())
    return {**install_variables(), **translated}


def _run(command: Sequence[str], variables: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command, env=dict(variables), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            cwd=ROOT, timeout=BUILD_STEP_DEADLINE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InstallFailed(
            f"`{' '.join(command)}` took more than {BUILD_STEP_DEADLINE_S:.0f} s; check the network or the index"
        ) from None
    if done.returncode != 0:
        output = f"{done.stdout}{done.stderr}"
        raise InstallFailed(_reason(output), f"{' '.join(command)}\n{output}")


def _reason(output: str) -> str:
    """The end of an installer's output, in one line."""
    words = " ".join(output.split()) or "it gave no reason"
    return words if len(words) <= _MAX_REASON_LENGTH else "..." + words[-_MAX_REASON_LENGTH:]
