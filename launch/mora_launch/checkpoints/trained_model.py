"""The models in a run's checkpoint: every agent's weights, and z. `RUN[:STEP]` names a checkpoint.

Used by the rounds, and by every command that takes `--checkpoint`. Needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_runtime.errors import CheckpointError
from mora_runtime.files.shard_file import ShardFile, verify
from mora_trainer.checkpoint.commit_record import CheckpointInfo
from safetensors.numpy import load_file

from mora_launch.checkpoints.run_checkpoints import Checkpoints
from mora_launch.config.train_config import AgentsConfig, TrainConfig
from mora_launch.environments.venvs import ROOT

# Which option of an agent of each environment names its trained transformer.
WEIGHTS_OPTION = {"sd3": "transformer", "opensora": "model"}
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

    def options(self, environments: dict[str, str]) -> dict[str, dict[str, str]]:
        """Return, by agent, the option that makes it load these weights.

        Args:
            environments: environment of each agent to load, by name.
        """
        self.check_agents(environments)
        return {
            name: {WEIGHTS_OPTION[environment]: str(self.weights[name])} for name, environment in environments.items()
        }

    def read_embeddings(self) -> dict[str, Any]:
        """Read z_i by agent as numpy arrays, float32 (rows, d_i); empty if the run trained without modulation."""
        if self.embeddings is None:
            return {}
        return load_file(str(self.embeddings))

    def put_into(self, config: TrainConfig) -> TrainConfig:
        """Return the configuration in which every agent loads these weights."""
        found = self.options({name: agent.environment for name, agent in config.agents.items()})
        agents = {
            name: agent.model_copy(update={"options": {**agent.options, **found[name]}})
            for name, agent in config.agents.items()
        }
        return config.model_copy(update={"agents": AgentsConfig(**agents)})


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


def untrained_sha256(config: TrainConfig) -> dict[str, str]:
    """Return the SHA-256 of each agent's initial weights, or their name on the Hub if they are not on this machine."""
    agents = config.agents.items()
    return {name: _folder_sha256(_weights_folder(agent.environment, agent.options)) for name, agent in agents}


def _weights_folder(environment: str, options: dict[str, object]) -> Path:
    if environment == "sd3":
        trained = options.get("transformer")
        return ROOT / str(trained) if trained else ROOT / str(options["model"]) / "transformer"
    return ROOT / str(options["model"])


def _folder_sha256(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return f"not on this machine: {folder.name}"
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
