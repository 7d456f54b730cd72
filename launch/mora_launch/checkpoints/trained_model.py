"""What a checkpoint of a run offers to whoever generates with it: every agent's weights, and z. `RUN[:STEP]` names it.

Used by the rounds, and by every command that takes `--checkpoint`. Starts without torch.
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
    """A committed checkpoint, as models.

    Args:
        weights: folder by agent, as diffusers and upstream load them.
        embeddings: file with z_i by agent, float32 (rows, d_i); None where the run trained without modulation.
        sha256: of every agent's weights, and of z under `modulation`.
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
        """CheckpointError where it has no weights of one of these agents."""
        expected = set(names)
        if not expected <= set(self.weights):
            raise CheckpointError(
                f"checkpoint of step {self.step}: expected weights of {', '.join(sorted(expected))}, got "
                f"{', '.join(sorted(self.weights))}; it belongs to another configuration"
            )

    def options(self, environments: dict[str, str]) -> dict[str, dict[str, str]]:
        """By agent, the option that makes it load these weights.

        Args:
            environments: of every agent that is to load, by its name.
        """
        self.check_agents(environments)
        return {
            name: {WEIGHTS_OPTION[environment]: str(self.weights[name])} for name, environment in environments.items()
        }

    def read_embeddings(self) -> dict[str, Any]:
        """z_i by agent as numpy arrays, float32 (rows, d_i); empty where the run trained without modulation."""
        if self.embeddings is None:
            return {}
        return load_file(str(self.embeddings))

    def put_into(self, config: TrainConfig) -> TrainConfig:
        """The configuration with every agent loading these weights."""
        found = self.options({name: agent.environment for name, agent in config.agents.items()})
        agents = {
            name: agent.model_copy(update={"options": {**agent.options, **found[name]}})
            for name, agent in config.agents.items()
        }
        return config.model_copy(update={"agents": AgentsConfig(**agents)})


def named_checkpoint(text: str) -> tuple[Path, int | None]:
    """Run and step that `RUN[:STEP]` names; a path that is there as it stands is never taken apart."""
    run, colon, step = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return Path(text), None
    if not (step.isascii() and step.isdecimal() and len(step) <= 18):
        raise CheckpointError(
            f"--checkpoint {text}: expected RUN or RUN:STEP with the number of steps, got `{step[:40]}`"
        )
    return Path(run), int(step)


def trained_model(run: Path, step: int | None, *, average: bool = False) -> TrainedModel:
    """The model of a run's checkpoint, its files compared with their hashes.

    Args:
        step: None is the committed one.
        average: the moving average instead of the weights.

    Raises:
        CheckpointError: there is none, a file is damaged, or it holds adapters instead of whole weights.
    """
    checkpoints = Checkpoints.of_run(run)
    info = checkpoints.find(step)
    root = checkpoints.folder / info.folder
    part = "ema" if average else "weights"
    weights = {Path(file.path).parts[0]: root / Path(file.path).parent for file in _of_part(info, part)}
    if not weights:
        adapters = any(file.path.endswith("adapter_model.safetensors") for file in info.files)
        why = "it holds LoRA adapters alone" if adapters else f"it holds no `{part}`; was the run without them?"
        raise CheckpointError(f"{info.folder}: cannot be generated with: {why}")
    info.check_files(root)  # libraries load what lies in a folder
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
    """SHA-256 of the weights that each agent of a configuration starts from; the Hub's name where they are not here."""
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
