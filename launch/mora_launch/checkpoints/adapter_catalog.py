"""The LoRA adapters that requests may name, from the configuration: the only place where a name becomes a path."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mora_runtime.errors import CheckpointError
from mora_runtime.rpc.server_settings import AllowedAdapters

from mora_launch.checkpoints.adapter_file import AdapterFile
from mora_launch.checkpoints.trained_model import TrainedModel, named_checkpoint, trained_model
from mora_launch.config.adapters_config import ADAPTER_NAME, AdaptersConfig


@dataclass(frozen=True)
class NamedAdapters:
    """All adapters of one name.

    Args:
        source: where they come from, for people.
        files: by agent.
        for_any: adapters for every agent whose model they fit, which the servers find out.
        run: of a run: its z goes with its adapters, and training does not remove its checkpoint meanwhile.
    """

    name: str
    source: str
    files: Mapping[str, AdapterFile] = field(default_factory=dict)
    for_any: AdapterFile | None = None
    run: TrainedModel | None = None

    def file_for(self, agent: str) -> AdapterFile | None:
        """Return the file for an agent; None if there is none."""
        return self.files.get(agent, self.for_any)

    @property
    def sha256(self) -> dict[str, str]:
        """Hash of each file by agent, `any` if it is for any; and of z as `modulation`."""
        known = {} if self.for_any is None else {"any": self.for_any.sha256}
        z = {} if self.run is None else {name: value for name, value in self.run.sha256.items() if name == "modulation"}
        return known | {agent: file.sha256 for agent, file in self.files.items()} | z

    def __str__(self) -> str:
        agents = ", ".join(self.files) or "any agent that they fit"
        return f"`{self.name}` from {self.source}, for {agents}"


@dataclass(frozen=True)
class AdapterCatalog:
    """All adapters of a server, by name."""

    entries: Mapping[str, NamedAdapters] = field(default_factory=dict)

    @classmethod
    def read(cls, config: AdaptersConfig, agents: Collection[str], most_nbytes: int) -> AdapterCatalog:
        """Read the adapters of a configuration.

        Args:
            agents: those that can have adapters.
            most_nbytes: of all adapters of one agent, which its servers keep in memory.

        Raises:
            CheckpointError: a name, folder, run or file is wrong, or they need too much memory.
        """
        entries = {}
        for name, place in adapter_places(config).items():
            entries[name] = _named(name, place)
            unknown = [agent for agent in entries[name].files if agent not in agents]
            if unknown:
                raise CheckpointError(
                    f"adapters `{name}`: {place} has some for `{unknown[0]}`; the agents that can have adapters are "
                    f"{', '.join(agents) or 'none'}"
                )
        catalog = cls(entries)
        for agent in agents:
            catalog._check_memory(agent, most_nbytes)
        return catalog

    def _check_memory(self, agent: str, most_nbytes: int) -> None:
        files = {name: file for name, entry in self.entries.items() if (file := entry.file_for(agent)) is not None}
        nbytes = sum(file.nbytes for file in files.values())
        if nbytes > most_nbytes:
            largest = max(files, key=lambda name: files[name].nbytes)
            raise CheckpointError(
                f"serving.adapters: those for {agent} have {nbytes} bytes, the largest is `{largest}`; expected at "
                f"most serving.max_adapter_nbytes, {most_nbytes}"
            )

    def allowed_for(self, agent: str) -> tuple[AllowedAdapters, ...]:
        """Return what the servers of an agent load."""
        return tuple(
            file.allowed_as(name, must_fit=agent in entry.files)
            for name, entry in self.entries.items()
            if (file := entry.file_for(agent)) is not None
        )


def adapter_places(config: AdaptersConfig) -> dict[str, str]:
    """Return the folder, file or run of every name. Raises: CheckpointError: the folder of all cannot be read."""
    return dict(_places(config))


def _places(config: AdaptersConfig) -> Iterator[tuple[str, str]]:
    if config.folder is not None:
        folder = Path(config.folder).absolute()
        try:
            found = sorted(folder.iterdir())
        except OSError as error:
            raise CheckpointError(f"serving.adapters.folder: {folder}: {error.strerror}") from None
        for path in found:
            name = path.name.removesuffix(".safetensors")
            if path.name.startswith(".") or not (path.is_dir() or AdapterFile.is_at(path)):
                continue
            if not re.fullmatch(ADAPTER_NAME, name):
                raise CheckpointError(
                    f"serving.adapters.folder: {path}: expected a name of letters, digits, `.`, `_` and `-`, at most 64"
                )
            if name in config.named or (path.name != name and (folder / name).exists()):
                raise CheckpointError(f"serving.adapters: two are named `{name}`; rename one")
            yield name, str(path)
    yield from config.named.items()


def _named(name: str, place: str) -> NamedAdapters:
    path = Path(place)
    try:
        if not path.exists() or (path / "checkpoints").is_dir():
            return _of_run(name, place)
        if AdapterFile.is_at(path):
            return NamedAdapters(name, place, for_any=AdapterFile.read(path))
        parts = sorted(part for part in path.iterdir() if part.is_dir())
        whole = [part.name for part in parts if not AdapterFile.is_at(part)]
        if whole or not parts:
            raise CheckpointError(f"{path}: {whole[0] if whole else 'it'} has no LoRA adapters")
        return NamedAdapters(name, place, {part.name: AdapterFile.read(part) for part in parts})
    except CheckpointError as error:
        raise CheckpointError(f"adapters `{name}`: {error}") from None


def _of_run(name: str, place: str) -> NamedAdapters:
    run, step = named_checkpoint(place)
    if not run.exists():
        raise CheckpointError(
            f"{run.absolute()} does not exist; expected a run, RUN:STEP, or exported adapters (a relative path is read "
            "from the working directory)"
        )
    model = trained_model(run, step)
    if model.weights:
        raise CheckpointError(
            f"{place} has whole weights of {', '.join(sorted(model.weights))}, and a request can only choose LoRA "
            "adapters; export those of the other agents with `./mora checkpoint export --agent`"
        )
    files = {agent: AdapterFile.read(folder.path) for agent, folder in model.adapters.items()}
    return NamedAdapters(name, f"step {model.step} of {model.run}", files, run=model)
