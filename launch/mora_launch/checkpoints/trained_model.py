"""The models in a run's checkpoint: every agent's weights or LoRA adapters, and z. `RUN[:STEP]` names a checkpoint.

Used by the rounds, and by every command that takes `--checkpoint`. Needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mora_runtime.errors import CheckpointError
from mora_runtime.files.shard_file import ShardFile, verify
from mora_trainer.checkpoint.commit_record import CheckpointInfo
from mora_trainer.checkpoint.pin import CheckpointPin
from mora_training.training_settings import ADAPTER_FILE
from safetensors.numpy import load_file

from mora_launch.checkpoints.adapter_folder import AdapterFolder
from mora_launch.checkpoints.run_checkpoints import Checkpoints
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.environments.venvs import ROOT

_WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
_MODULATION = "coordinator/modulation.safetensors"


@dataclass(frozen=True)
class TrainedModel:
    """The models of a checkpoint.

    Args:
        weights: folder by agent, in the format that diffusers and upstream load.
        embeddings: file with z_i by agent, float32 (rows, d_i); None if the run trained without modulation.
        sha256: hash of every agent's weights or adapters, and of z under `modulation`.
        adapters: by agent, of those that trained LoRA adapters; they are not in `weights`.
        pin: training does not remove the checkpoint while this object exists.
    """

    run: Path
    step: int
    weights: dict[str, Path]
    embeddings: Path | None
    sha256: dict[str, str]
    adapters: dict[str, AdapterFolder] = field(default_factory=dict)
    pin: CheckpointPin | None = field(default=None, compare=False)

    @property
    def folder(self) -> str:
        """Name of the checkpoint's folder."""
        return f"step-{self.step:08d}"

    @property
    def agents(self) -> set[str]:
        """The agents of which the checkpoint has weights or adapters."""
        return {*self.weights, *self.adapters}

    def told(self, bases: Mapping[str, str | None]) -> str:
        """Return what the checkpoint gives each agent, in one line.

        Args:
            bases: by agent, the folder of the weights that its adapters are added to; None if it is not known.
        """
        parts = [f"{name}: whole weights" for name in self.weights]
        for name, adapters in self.adapters.items():
            base = bases.get(name)
            parts.append(f"{name}: {adapters}" + ("" if base is None else f" on {base}"))
        z = "no z" if self.embeddings is None else "z"
        return f"checkpoint of step {self.step}: {'; '.join([*sorted(parts), z])}"

    def check_agents(self, names: Iterable[str]) -> None:
        """Raises: CheckpointError: the checkpoint lacks the weights or adapters of one of these agents."""
        expected = set(names)
        if not expected <= self.agents:
            raise CheckpointError(
                f"checkpoint of step {self.step}: expected weights of {', '.join(sorted(expected))}, got "
                f"{', '.join(sorted(self.agents))}; it belongs to another configuration"
            )

    def read_embeddings(self) -> dict[str, Any]:
        """Read z_i by agent as numpy arrays, float32 (rows, d_i); empty if the run trained without modulation."""
        if self.embeddings is None:
            return {}
        return load_file(str(self.embeddings))

    def put_into(self, config: TrainConfig) -> TrainConfig:
        """Return the configuration in which every agent loads its weights, or its adapters on top of its own weights.

        Critics, which never train, have neither, and agents outside the chain need none.

        Raises:
            CheckpointError: the checkpoint has other agents than the chain of the configuration.
        """
        names = [name for name, _ in config.agents.items()]
        if not self.agents <= set(names):
            raise CheckpointError(
                f"checkpoint of step {self.step}: has weights of {', '.join(sorted(self.agents))}, the configuration "
                f"has the agents {', '.join(names)}; it belongs to another configuration"
            )
        chain = config.chain_names
        self.check_agents(name for name in chain if name in self.agents or name not in config.losses)
        agents = {name: agent.model_copy(update=self._loaded(name)) for name, agent in config.agents.items()}
        return config.model_copy(update={"agents": agents})

    def _loaded(self, agent: str) -> dict[str, str | None]:
        """The keys of an agent's configuration that make it load what the checkpoint has of it."""
        if agent in self.weights:
            return {"weights": str(self.weights[agent]), "adapters": None}
        return {"adapters": str(self.adapters[agent].path)} if agent in self.adapters else {}


def named_checkpoint(text: str) -> tuple[Path, int | None]:
    """Split `RUN[:STEP]` into run and step; an existing path is never split."""
    run, colon, step = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return Path(text), None
    if not (step.isascii() and step.isdecimal() and len(step) <= 18):
        raise CheckpointError(
            f"checkpoint {text}: expected RUN or RUN:STEP with the number of steps, got `{step[:40]}`"
        )
    return Path(run), int(step)


def trained_model(run: Path, step: int | None, *, average: bool = False) -> TrainedModel:
    """Return the models of a run's checkpoint, after a comparison of its files with their hashes.

    Args:
        step: None is the committed checkpoint.
        average: use the moving average instead of the weights.

    Raises:
        CheckpointError: there is no such checkpoint, a file is damaged, or the run did not save such weights.
    """
    checkpoints = Checkpoints.of_run(run)
    info, pin = checkpoints.pinned(step)
    root = checkpoints.folder / info.folder
    part = "ema" if average else "weights"
    weights, adapted = _of_part(info, part, _WEIGHTS_FILE), _of_part(info, part, ADAPTER_FILE)
    if not weights and not adapted:
        raise CheckpointError(f"{info.folder}: cannot be used to generate: it has no `{part}`; did the run save them?")
    info.check_files(root)  # refuses extra files, which libraries would load
    for file in info.files:
        if "optimizer-" not in file.path:
            verify(file, root)
    sha256 = {agent: file.sha256 for agent, file in {**weights, **adapted}.items()}
    z = next((file for file in info.files if file.path == _MODULATION), None)
    return TrainedModel(
        run,
        info.step,
        weights={agent: root / Path(file.path).parent for agent, file in weights.items()},
        embeddings=None if z is None else root / z.path,
        sha256=sha256 if z is None else sha256 | {"modulation": z.sha256},
        adapters={agent: AdapterFolder.read(root / Path(file.path).parent) for agent, file in adapted.items()},
        pin=pin,
    )


def _of_part(info: CheckpointInfo, part: str, name: str) -> dict[str, ShardFile]:
    """The file of this name of every agent that has it, by agent."""
    paths = {file: Path(file.path).parts for file in info.files}
    return {parts[0]: file for file, parts in paths.items() if parts[1:] == (part, name)}


def untrained_sha256(checked: Mapping[str, CheckedOptions]) -> dict[str, str]:
    """Return the SHA-256 of the initial weights of each agent that has some, or that they are not on this machine."""
    return {name: _initial_sha256(agent) for name, agent in checked.items() if agent.weights is not None}


def _initial_sha256(checked: CheckedOptions) -> str:
    if checked.weights_folder is None:
        return "not on this machine"
    return _folder_sha256(ROOT / checked.weights_folder)


def _folder_sha256(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return f"not on this machine: {folder.name}"
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
