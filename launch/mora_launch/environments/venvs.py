"""Virtual environments of the checkout: what one contains, and whether it is built.

The `mora` script imports this module, `installer` and `venv_build` before any environment exists, so they use only the
standard library and run on Python 3.10. A virtual environment counts as built if its stamp, written last, has the hash
of the lock that was installed and of every distribution that the environment needs.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
RUNTIME = ROOT / "runtime"
STAMP_NAME = "mora-stamp.json"
PYTHON_VERSION = "3.11"  # of the control environment


@dataclass(frozen=True)
class Venv:
    """One virtual environment: a lock file, and distributions in editable mode on top of it.

    Args:
        name: of the folder in `.venvs/` of the checkout.
        python_version: such as 3.11.
        lock_file: requirements in pip's format, every version pinned.
        distributions: folders with a `pyproject.toml`.
    """

    name: str
    python_version: str
    lock_file: Path
    distributions: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """Folder of the environment; a link if another environment with the same packages has them on disk."""
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
        digest.update(f"{self.python_version} {torch_backend()} {ROOT}".encode())
        return digest.hexdigest()[:16]

    @property
    def packages_hash(self) -> str:
        """First 16 hex digits of SHA-256 over what is installed below the distributions: the same for two environments
        that can share one folder."""
        content = self.lock_file.read_bytes() + f"{self.python_version} {torch_backend()} {ROOT}".encode()
        return hashlib.sha256(content).hexdigest()[:16]

    def has_packages(self) -> bool:
        """Tell whether the lock is installed in the folder."""
        # `Path.exists` raises an error if a folder on the way is closed to this user
        return os.path.exists(self.python) and Stamp.read(self.folder).packages_hash == self.packages_hash

    def refusal(self) -> str | None:
        """Say why this user may not run the interpreter, which exists or may exist; None if nothing forbids it."""
        try:
            os.stat(self.python)
        except PermissionError as error:
            why = error.strerror
        except OSError:
            return None  # it is missing, so it can be built
        else:
            if os.access(self.python, os.X_OK):
                return None
            why = "it is not executable"
        target = os.readlink(self.python) if os.path.islink(self.python) else None
        shown = str(self.python) if target is None else f"{self.python} (a link to {target})"
        return f"user id {os.getuid()} may not run its interpreter {shown}: {why}"

    def missing_distributions(self) -> list[Path]:
        """Distributions that are not installed in the folder, or changed their `pyproject.toml` since."""
        installed = Stamp.read(self.folder).distributions
        return [folder for folder in self.distributions if installed.get(str(folder)) != pyproject_hash(folder)]

    def is_built(self) -> bool:
        """Tell whether lock and distributions are installed as they are now."""
        return self.has_packages() and not self.missing_distributions()


@dataclass(frozen=True)
class Stamp:
    """What a folder's builders have installed into it."""

    packages_hash: str
    distributions: dict[str, str]  # folder -> hash of its `pyproject.toml`

    @classmethod
    def read(cls, folder: Path) -> Stamp:
        """Read a folder's stamp; an absent or broken one says that nothing is installed."""
        try:
            content = json.loads((folder / STAMP_NAME).read_text())
            return cls(str(content["packages_hash"]), {str(k): str(v) for k, v in content["distributions"].items()})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls("", {})

    def write(self, folder: Path) -> None:
        """Replace a folder's stamp."""
        temporary = folder / (STAMP_NAME + ".tmp")
        temporary.write_text(json.dumps({"packages_hash": self.packages_hash, "distributions": self.distributions}))
        temporary.rename(folder / STAMP_NAME)


def pyproject_hash(folder: Path) -> str:
    """First 16 hex digits of SHA-256 of a distribution's `pyproject.toml`."""
    return hashlib.sha256((folder / "pyproject.toml").read_bytes()).hexdigest()[:16]


def path_hash(path: Path, more: str = "") -> str:
    """First 16 hex digits of SHA-256 of a path, and of a text."""
    return hashlib.sha256(f"{path} {more}".encode()).hexdigest()[:16]


def torch_backend() -> str:
    """Return the build of torch to install: `cuda` if an NVIDIA driver is loaded, else `cpu`."""
    return "cuda" if Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists() else "cpu"


CONTROL = Venv(
    "control",
    PYTHON_VERSION,
    ROOT / "launch" / "requirements.lock",
    (RUNTIME, ROOT / "data", ROOT / "trainer", ROOT / "launch"),
)
