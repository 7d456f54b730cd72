"""The models in a run's checkpoint: every agent's weights, and z. `RUN[:STEP]` names a checkpoint.

Used by the rounds, and by every command that takes `--checkpoint`. Needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_runtime.errors import CheckpointError
from mora_runtime.files.shard_file import ShardFile, verify
from mora_trainer.checkpoint.commit_record import CheckpointInfo
from safetensors.numpy import load_file

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
        sha256: hash of every agent's weights, and of z under `modulation`.
    """

    run: Path
    step: int
    weights: dict[str, Path]
    embeddings: Path | None
    sha256: dict[str, str]

    @property
    def folder(self) -> str:
        """Name of the checkpoint's folder."""
        return f"step-{self.step:08d}"

    def check_agents(self, names: Iterable[str]) -> None:
        """Raises: CheckpointError: the checkpoint lacks the weights of one of these agents."""
        expected = set(names)
        if not expected <= set(self.weights):
            raise CheckpointError(
                f"checkpoint of step {self.step}: expected weights of {', '.join(sorted(expected))}, got "
                f"{', '.join(sorted(self.weights))}; it belongs to another configuration"
            )

    def read_embeddings(self) -> dict[str, Any]:
        """Read z_i by agent as numpy arrays, float32 (rows, d_i); empty if the run trained without modulation."""
        if self.embeddings is None:
            return {}
        return load_file(str(self.embeddings))

    def put_into(self, config: TrainConfig) -> TrainConfig:
        """Return the configuration in which every agent loads these weights; critics, which never train, have none.

        Raises:
            CheckpointError: the checkpoint has other agents than the configuration.
        """
        names = [name for name, _ in config.agents.items()]
        if not set(self.weights) <= set(names):
            raise CheckpointError(
                f"checkpoint of step {self.step}: has weights of {', '.join(sorted(self.weights))}, the configuration "
                f"has the agents {', '.join(names)}; it belongs to another configuration"
            )
        self.check_agents(name for name in names if name in self.weights or name not in config.losses)
        agents = {
            name: agent.model_copy(update={"weights": str(self.weights[name])}) if name in self.weights else agent
            for name, agent in config.agents.items()
        }
        return config.model_copy(update={"agents": agents})


def named_checkpoint(text: str) -> tuple[Path, int | None]:
    """Split `RUN[:STEP]` into run and step; an existing path is never split."""
    run, colon, step = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return Path(text), None
    if not (step.isascii() and step.isdecimal() and len(step) <= 18):
        raise CheckpointError(
            f"--checkpoint {text}: expected RUN or RUN:STEP with the number of steps, got `{step[:40]}`"
        )
    return Path(run), int(step)


def trained_model(run: Path, step: int | None, *, average: bool = False) -> TrainedModel:
    """Return the models of a run's checkpoint, after a comparison of its files with their hashes.

    Args:
        step: None is the committed checkpoint.
        average: use the moving average instead of the weights.

    Raises:
        CheckpointError: there is no such checkpoint, a file is damaged, or it has adapters instead of whole weights.
    """
    checkpoints = Checkpoints.of_run(run)
    info = checkpoints.find(step)
    root = checkpoints.folder / info.folder
    part = "ema" if average else "weights"
    weights = {Path(file.path).parts[0]: root / Path(file.path).parent for file in _of_part(info, part)}
    if not weights:
        adapters = any(file.path.endswith("adapter_model.safetensors") for file in info.files)
        why = "it has only LoRA adapters" if adapters else f"it has no `{part}`; did the run save them?"
        raise CheckpointError(f"{info.folder}: cannot be used to generate: {why}")
    info.check_files(root)  # refuses extra files, which libraries would load
    for file in info.files:
        if "optimizer-" not in file.path:
            verify(file, root)
    sha256 = {Path(file.path).parts[0]: file.sha256 for file in _of_part(info, part)}
    z = next((file for file in info.files if file.path == _MODULATION), None)
    if z is None:
        return TrainedModel(run, info.step, weights, None, sha256)
    return TrainedModel(run, info.step, weights, root / z.path, sha256 | {"modulation": z.sha256})


def _of_part(info: CheckpointInfo, part: str) -> list[ShardFile]:
    return [file for file in info.files if Path(file.path).parts[1:] == (part, _WEIGHTS_FILE)]


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
