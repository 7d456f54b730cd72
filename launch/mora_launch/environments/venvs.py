"""The virtual environments: defines what each contains, checks whether it is built, and builds it.

The `mora` script calls this module before any environment exists, so it uses only the standard library and runs on
Python 3.10. It owns the folder `.venvs/` of the checkout. An environment counts as built if its stamp, written last,
contains the hash of everything it was built from. Without a stamp, or with another hash, it is rebuilt from scratch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mora_launch.limits import BUILD_LOCK_DEADLINE_S, BUILD_STEP_DEADLINE_S

ROOT = Path(__file__).resolve().parents[3]
STAMP_NAME = "mora-stamp.json"
PYTHON_VERSION = "3.11"  # the only one with wheels of both numpy 1.24.4 (Open-Sora-Plan) and numpy 2.4 (SD3)
SHOWN_PACKAGES = ("torch", "diffusers", "transformers", "huggingface_hub", "numpy", "deepspeed")
REASON = (
    "diffusers 0.42 (Stable Diffusion 3) requires huggingface_hub >= 1.32, transformers 4.40.1 (Open-Sora-Plan v1.2) "
    "requires huggingface_hub < 1.0: one environment cannot contain both. "
    "Proof: pip install --dry-run diffusers==0.42.1 transformers==4.40.1"
)


# The command line itself runs inside an environment without pip, so the Python beneath that one builds the others.
HOST_PYTHON: str = getattr(sys, "_base_executable", sys.executable)


class EnvironmentBuildError(Exception):
    """An environment could not be built; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Environment:
    """One virtual environment: a lock file and the distributions of this checkout to install into it."""

    name: str
    lock_file: Path
    distributions: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """Folder of the environment: `.venvs/<name>` of the checkout."""
        return ROOT / ".venvs" / self.name

    @property
    def python(self) -> Path:
        """Interpreter of the environment; it exists once the environment is built."""
        return self.folder / "bin" / "python"

    @property
    def lock_hash(self) -> str:
        """First 16 hex digits of SHA-256 over lock, pyprojects, Python version and kind of torch build."""
        digest = hashlib.sha256()
        for path in (self.lock_file, *(folder / "pyproject.toml" for folder in self.distributions)):
            digest.update(path.read_bytes())
        digest.update(f"{PYTHON_VERSION} {torch_backend()} {ROOT}".encode())
        return digest.hexdigest()[:16]

    def is_built(self) -> bool:
        """Return whether the stamp matches the current lock; a partly built or outdated environment is not built."""
        try:
            stamp = json.loads((self.folder / STAMP_NAME).read_text())
        except (OSError, ValueError):
            return False
        return isinstance(stamp, dict) and stamp.get("lock_hash") == self.lock_hash and self.python.exists()


def _environment(name: str, lock_folder: str, *distributions: str) -> Environment:
    return Environment(name, ROOT / lock_folder / "requirements.lock", tuple(ROOT / d for d in distributions))


ENVIRONMENTS: Mapping[str, Environment] = {
    "control": _environment("control", "launch", "runtime", "data", "trainer", "launch"),
    "sd3": _environment("sd3", "env_sd3", "runtime", "env_sd3"),
    "opensora": _environment("opensora", "env_opensora", "runtime", "env_opensora"),
}


def torch_backend() -> str:
    """Return the build of torch to install: `cuda` if an NVIDIA driver is loaded, else `cpu`."""
    return "cuda" if Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists() else "cpu"


def ensure(names: Sequence[str], *, progress: TextIO = sys.stderr) -> None:
    """Build the named environments that are missing or outdated. Two processes may call this at once.

    Raises:
        EnvironmentBuildError: a build failed; the environment has no stamp and will be rebuilt next time.
    """
    if all(ENVIRONMENTS[name].is_built() for name in names):
        return
    with _build_lock(progress):
        missing = [ENVIRONMENTS[name] for name in names if not ENVIRONMENTS[name].is_built()]
        for position, environment in enumerate(missing, start=1):
            _build(environment, f"[{position}/{len(missing)}]", progress)


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


def _build(environment: Environment, position: str, progress: TextIO) -> None:
    started_s = time.monotonic()
    print(
        f"mora: {position} building environment {environment.name} ({torch_backend()} torch) ...",
        end=" ",
        file=progress,
        flush=True,
    )
    shutil.rmtree(environment.folder, ignore_errors=True)
    try:
        uv = _find_uv()
        if uv is not None:
            _build_with_uv(environment, uv)
        else:
            _build_with_pip(environment)
    except EnvironmentBuildError:
        print("failed", file=progress, flush=True)
        raise
    stamp = {"lock_hash": environment.lock_hash, "python": PYTHON_VERSION, "torch": torch_backend()}
    temporary = environment.folder / (STAMP_NAME + ".tmp")
    temporary.write_text(json.dumps(stamp))
    temporary.rename(environment.folder / STAMP_NAME)
    print(f"done in {time.monotonic() - started_s:.0f} s", file=progress, flush=True)


def _build_with_uv(environment: Environment, uv: str) -> None:
    variables = _install_variables()
    variables.update(_uv_variables())
    python = _host_python() or PYTHON_VERSION  # given only a version, uv finds or downloads an interpreter
    _run(environment, [uv, "venv", "-q", "--python", python, str(environment.folder)], variables)
    install = [uv, "pip", "install", "-q", "--python", str(environment.python)]
    backend = [] if "UV_FIND_LINKS" in variables or torch_backend() == "cuda" else ["--torch-backend", "cpu"]
    # Without bytecode every process compiles torch, diffusers and transformers again when it starts, which takes
    # seconds if site-packages is read-only or PYTHONDONTWRITEBYTECODE is set. pip compiles by default.
    compiled = ["--compile-bytecode"]
    _run(environment, [*install, *compiled, *backend, "-r", str(environment.lock_file)], variables)
    _run(environment, [*install, "--no-deps", *_editable(environment)], variables)


def _build_with_pip(environment: Environment) -> None:
    variables = _install_variables()
    python = _host_python()
    if python is None:
        raise EnvironmentBuildError(
            f"environment {environment.name} needs Python {PYTHON_VERSION}; found {sys.version.split()[0]} and no "
            f"python{PYTHON_VERSION} on PATH; install Python {PYTHON_VERSION} or uv, and try again"
        )
    _run(environment, [python, "-m", "venv", str(environment.folder)], variables)
    install = [str(environment.python), "-m", "pip", "install", "-q"]
    _run(environment, [*install, "-r", str(environment.lock_file)], variables)
    _run(environment, [*install, "--no-deps", *_editable(environment)], variables)


def _editable(environment: Environment) -> list[str]:
    return [word for folder in environment.distributions for word in ("-e", str(folder))]


def _host_python() -> str | None:
    """Return a Python of the version that the locks need: the running one, or one on PATH; None if neither fits."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == PYTHON_VERSION:
        return HOST_PYTHON
    return shutil.which(f"python{PYTHON_VERSION}")


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
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _install_variables() -> dict[str, str]:
    # By default DeepSpeed compiles its operators at install time. They are not needed: torch.optim.AdamW replaces them.
    variables = {**os.environ, "DS_BUILD_OPS": "0"}
    if torch_backend() == "cpu":
        variables["DS_ACCELERATOR"] = "cpu"
    return variables


def _uv_variables() -> dict[str, str]:
    """Return pip's configuration as variables for uv, which reads neither pip.conf nor PIP_*."""
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
    return translated


def _run(environment: Environment, command: Sequence[str], variables: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command, env=dict(variables), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            cwd=ROOT, timeout=BUILD_STEP_DEADLINE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EnvironmentBuildError(
            f"environment {environment.name} could not be built: `{' '.join(command)}` took more than "
            f"{BUILD_STEP_DEADLINE_S:.0f} s; check the network or the package index, then try again"
        ) from None
    if done.returncode == 0:
        return
    tail = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-8:])
    raise EnvironmentBuildError(
        f"environment {environment.name} could not be built: `{' '.join(command)}` exited with {done.returncode}:\n"
        f"    {tail}\n"
        f"Expected every package of {environment.lock_file.relative_to(ROOT)} to be installable. Check the network and "
        "the package index in pip's configuration, then try again: the environment is rebuilt from scratch."
    )


def installed_versions(environment: Environment) -> dict[str, str]:
    """Return the versions of the packages in which the environments differ, from metadata, without importing them."""
    from importlib.metadata import distributions

    site_packages = str(environment.folder / "lib" / f"python{PYTHON_VERSION}" / "site-packages")
    found = {d.metadata["Name"].lower().replace("-", "_"): d.version for d in distributions(path=[site_packages])}
    return {name: found[name] for name in SHOWN_PACKAGES if name in found}


def describe() -> dict[str, dict[str, object]]:
    """Return interpreter, state, lock hash and package versions of each environment, for `mora env list --json`."""
    return {
        name: {
            "python": str(environment.python),
            "python_version": PYTHON_VERSION,
            "built": environment.is_built(),
            "lock_hash": environment.lock_hash,
            "packages": installed_versions(environment),
        }
        for name, environment in ENVIRONMENTS.items()
    }
