"""One environment: an interpreter and the package in it whose agents the servers host."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mora_launch.environments.interpreter import ask_interpreter
from mora_launch.environments.manifest import MANIFEST, Manifest, read_manifest
from mora_launch.environments.venvs import ROOT, RUNTIME, Venv, path_hash


@dataclass(frozen=True)
class Environment:
    """One environment.

    Args:
        name: how agents of the configuration name it.
        package: `python -m PACKAGE` is its command line, `mora_environment.main`.
        python: its interpreter.
        told_by: what defined it, for errors: a manifest, or a key of the configuration.
        venv: what the launcher builds; None for an interpreter that exists.
    """

    name: str
    package: str
    python: Path
    told_by: str
    venv: Venv | None

    @classmethod
    def of_folder(cls, folder: Path, name: str | None = None) -> Environment:
        """The environment of a folder with a manifest.

        Args:
            name: replaces the manifest's.

        Raises:
            SettingsError: the manifest is missing or wrong.
        """
        manifest = read_manifest(folder)
        venv = _venv(folder, manifest)
        return cls(name or manifest.name, manifest.package, venv.python, str(folder / MANIFEST), venv)

    @cached_property
    def lock_hash(self) -> str:
        """Identity of what is installed; client and server compare it when they connect.

        Raises:
            EnvironmentFailed: the interpreter cannot be run.
        """
        if self.venv is not None:
            return self.venv.lock_hash
        return path_hash(self.python, ask_interpreter(self.python).hash)

    @property
    def build_name(self) -> str:
        """What `mora env build` takes: the name of an environment of the checkout, else the folder."""
        folder = Path(self.told_by).parent
        return self.name if folder.parent == ROOT else str(folder)

    @property
    def packages_hash(self) -> str:
        """Identity of what is installed from elsewhere: unlike `lock_hash`, the same after a change of the package."""
        return self.lock_hash if self.venv is None else self.venv.packages_hash

    @property
    def package_folder(self) -> Path | None:
        """Folder of the package's source, if the launcher installed it from one."""
        parts = self.package.split(".")
        distributions = () if self.venv is None else self.venv.distributions
        folders = (path.joinpath(*parts) for each in distributions for path in (each, each / "src"))
        return next((folder for folder in folders if folder.is_dir()), None)


def _venv(folder: Path, manifest: Manifest) -> Venv:
    # environments of other folders may have the names of ours
    name = manifest.name if folder.parent == ROOT else f"{manifest.name}-{path_hash(folder)[:8]}"
    distributions = tuple((folder / each).resolve() for each in manifest.distributions)
    return Venv(name, manifest.python, folder / manifest.lock, (RUNTIME, *distributions))
