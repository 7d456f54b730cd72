"""A server's part of the two-phase optimisation step and of checkpoints.

Hosted as the agent named `participant` in every server that trains; that replica's coordinator calls it. It owns the
optimizer of one agent's trainable parameters. The coordinator decides, once for all roles, whether a step happens
(COMMIT) or not (SKIP): a participant never decides alone, so no half step can exist.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from mora_runtime.autograd.random_state import RandomState
from mora_runtime.errors import CheckpointError, StepProtocolError
from mora_runtime.files.durable_files import ShardFile
from mora_runtime.process import faults
from mora_runtime.process.closed_listeners import close_listeners
from mora_runtime.rpc.agent import Agent, remote
from safetensors.torch import load_file

from mora_training.adapters import adapter_tensors, num_adapted_layers
from mora_training.change_proof import ChangeProof
from mora_training.process_group import join_group, limit_waits
from mora_training.sharded_optimizer import ShardedOptimizer, local_gradient
from mora_training.shards import ShardWriter, copied, write_tensors
from mora_training.trainable import parameter_counts, select_trainable
from mora_training.training_settings import ADAPTER_FILE, OptimizerAgentSettings
from mora_training.weights_file import copy_tensors

PARTICIPANT = "participant"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
_FOLDER_PATTERN = re.compile(r"step-\d{8}(\.tmp)?|probe-[a-z0-9-]{1,32}")


@runtime_checkable
class Trainable(Protocol):
    """An agent that a participant can train."""

    def module(self) -> torch.nn.Module | None:
        """The module whose parameters train."""

    def model_config(self) -> dict[str, Any]:
        """Content of the `config.json` that makes the saved weights loadable by their own library."""


class OptimizerAgent(Agent):
    """Optimizer, moving average and checkpoint shards of one trained agent.

    Args:
        agent: the agent that trains; the participant shares its module.
        settings: group, optimizer, trainable parameters.
        device: of the module.
        checkpoints: the run's folder of checkpoints.
        role: name of the role in file names.
    """

    def __init__(
        self, agent: Trainable, settings: OptimizerAgentSettings, device: torch.device, checkpoints: Path, role: str
    ) -> None:
        module = agent.module()
        if module is None:
            raise StepProtocolError(f"{role}: this agent has no module, so it cannot train")
        self._agent = agent
        self._module: torch.nn.Module = module
        self._settings = settings
        self._device = device
        self._checkpoints = checkpoints
        self._role = role
        select_trainable(module, settings.trainable)
        parameters = [p for p in module.parameters() if p.requires_grad]
        self._optimizer: ShardedOptimizer | None = None
        if parameters:
            join_group(settings.group, device)
            self._optimizer = ShardedOptimizer(module, [parameters], settings.optimizer)
            limit_waits(settings.group.timeout_s)
            if device.type == "cpu":  # not on CUDA: NCCL connects at first use
                close_listeners()
        self._proof: ChangeProof | None = None  # from the first step with a learning rate on
        self._prepared_step: int | None = None
        self._writer: ShardWriter | None = None
        # the module's weights: (a checkpoint's folder or None for those from the start, whether its moving average);
        # None: weights that no checkpoint has
        self._holds: tuple[str | None, bool] | None = (None, False)
        self._only_shows = False  # the weights are not those of the optimizer

    @remote
    def counts(self) -> dict[str, Any]:
        """Number of parameters of the agent's module, all (`num_parameters`) and trainable (`num_trainable`).

        With it `scope`, what trains, and `num_adapted_layers`, the number of layers that have a LoRA adapter.
        """
        total, trainable = parameter_counts(self._module)
        return {
            "num_parameters": total,
            "num_trainable": trainable,
            "scope": self._settings.trainable.scope,
            "num_adapted_layers": num_adapted_layers(self._module),
        }

    @remote
    def prepare(self, step: int) -> dict[str, Any]:
        """Average this step's gradients over the replicas; report `finite` and `squared_norm` (the same on each)."""
        if self._only_shows:
            raise StepProtocolError(
                f"{self._role}: has the weights of {self._holds}, which are not those of its optimizer; expected "
                "`load` of a checkpoint before the first step"
            )
        self._prepared_step = step
        if self._optimizer is None:
            return {"finite": True, "squared_norm": 0.0}
        report = self._optimizer.prepare()
        faults.reach("prepared")
        return {"finite": report.finite, "squared_norm": report.squared_norm}

    @remote
    def commit(self, step: int, alpha: float, learning_rate: float, clip: float) -> dict[str, Any]:
        """Step with learning rate alpha * learning_rate (paper, algorithm 1) on gradients scaled by `clip`.

        alpha multiplies the rate, never the gradient, because AdamW is invariant to the gradient's scale.

        Returns:
            In the first steps after the start or `load`: `num_trained` tensors, of which `num_changed` differ since.
        """
        self._expect_prepared(step, "commit")
        self._holds = None
        changes = {} if self._optimizer is None else self._step(self._optimizer, alpha * learning_rate, clip)
        faults.reach("committed")
        return changes

    def _step(self, optimizer: ShardedOptimizer, rate: float, clip: float) -> dict[str, Any]:
        if self._proof is None and rate > 0.0:
            self._proof = ChangeProof(optimizer.trained_pieces())
        optimizer.commit([rate], clip)
        return {} if self._proof is None else {**self._proof.report(optimizer.trained_pieces())}

    @remote
    def skip(self, step: int) -> dict[str, Any]:
        """Drop this step's gradients and change nothing."""
        self._expect_prepared(step, "skip")
        if self._optimizer is not None:
            self._optimizer.discard()
        return {}

    @remote
    def abandon(self) -> dict[str, Any]:
        """Drop the gradients of a step that will not be prepared (a peer failed, or only gradients were needed)."""
        self._prepared_step = None
        if self._optimizer is not None:
            self._optimizer.reset()
        return {}

    def _expect_prepared(self, step: int, what: str) -> None:
        if self._prepared_step != step:
            raise StepProtocolError(
                f"{self._role}: got {what} of step {step}, but the prepared step is {self._prepared_step}; "
                "the coordinator and this server disagree: resume the run from its last checkpoint"
            )
        self._prepared_step = None

    @remote
    def dump_gradients(self, folder: str) -> dict[str, Any]:
        """Write the gradients of this rank so far (before any averaging) as `<folder>/<role>.safetensors`."""
        path = self._folder(folder) / f"{self._role}.safetensors"
        found = {name: local_gradient(parameter) for name, parameter in self._module.named_parameters()}
        gradients = {name: gradient for name, gradient in found.items() if gradient is not None}
        write_tensors(path, gradients)
        return {"num_parameters": len(gradients)}

    @remote
    def save(self, folder: str) -> dict[str, Any]:
        """Begin to write this rank's part of a checkpoint: optimizer shard and generator state; rank 0 also weights and
        average. The state of this call is copied first, so training may continue during the write (`saved`)."""
        root = self._folder(folder)
        target = root / self._role
        rank, world_size = self._settings.group.rank, self._settings.group.world_size
        files: dict[Path, dict[str, torch.Tensor] | str] = {}
        average = None
        if self._optimizer is not None:
            average = self._optimizer.gathered_ema()
            state = {**self._optimizer.state(), **RandomState.now(self._device).tensors()}
            files[target / f"optimizer-{rank:05d}-of-{world_size:05d}.safetensors"] = copied(state)
        if rank == 0:
            weights = copied(self._saved_tensors())
            files.update(self._weights(target / "weights", weights))
            if average is not None:
                files.update(self._weights(target / "ema", self._with_average(weights, average)))
        self._writer = ShardWriter(root, files)
        self._holds = (folder.removesuffix(".tmp"), False)
        return {}

    @remote
    def saved(self, wait_s: float) -> dict[str, Any]:
        """Tell whether the last `save` is on disk; waits at most `wait_s`.

        Returns:
            `{"done": False}`, or `{"done": True, "files": [path, ...], "nbytes": [...], "sha256": [...]}` with paths
            relative to the checkpoint's folder.
        """
        if self._writer is None:
            raise CheckpointError(f"{self._role}: `saved` came without `save`; call `save` first")
        if wait_s <= 0 and not self._writer.is_done:
            return {"done": False}
        return {"done": True, **_columns(self._writer.result(wait_s))}

    def _saved_tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of a checkpoint's weights: adapters alone with LoRA, else the module's whole state."""
        return adapter_tensors(self._module) if self._is_lora else self._module.state_dict()

    def _with_average(
        self, weights: dict[str, torch.Tensor], average: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The same tensors with the moving average of those that train."""
        if not self._is_lora:
            return {**weights, **average}
        return copied(adapter_tensors(self._module, {**self._module.state_dict(), **average}))

    @property
    def _is_lora(self) -> bool:
        return self._settings.trainable.scope == "lora"

    def _weights(self, target: Path, tensors: dict[str, torch.Tensor]) -> dict[Path, dict[str, torch.Tensor] | str]:
        """Content of the files that make the module loadable by its own library."""
        config = target / "config.json"
        if self._is_lora:
            settings = json.dumps(self._settings.trainable.model_dump(), indent=2)
            return {target / ADAPTER_FILE: tensors, config: settings}
        return {
            target / WEIGHTS_FILE: tensors,
            config: json.dumps(self._agent.model_config(), indent=2, sort_keys=True),
        }

    @remote
    def load(self, folder: str) -> dict[str, Any]:
        """Restore what `save` wrote; the coordinator must have checked the files' hashes against the manifest.

        Gradients of an unfinished step are dropped, and an unfinished checkpoint is abandoned.
        """
        self.abandon()
        if self._writer is not None:
            self._writer.wait()  # its checkpoint will not be committed, but the same folder will be written again
            self._writer = None
        target = self._folder(folder) / self._role
        if self._is_lora:
            copy_tensors(target / "weights" / ADAPTER_FILE, self._saved_tensors())
        else:
            self._module.load_state_dict(load_file(target / "weights" / WEIGHTS_FILE))
        if self._optimizer is not None:
            limit_waits(self._settings.group.join_timeout_s)  # files may take one replica much longer than another
            rank, world_size = self._settings.group.rank, self._settings.group.world_size
            path = target / f"optimizer-{rank:05d}-of-{world_size:05d}.safetensors"
            if not path.is_file():
                raise CheckpointError(
                    f"{self._role}: {path.name} is not in checkpoint {folder}, which was written with another number "
                    f"of replicas than the {world_size} of this run: set `replicas` to the number of that run"
                )
            state = load_file(path)
            RandomState.taken_from(state, self._device).restore()
            self._optimizer.load_state(state)
            limit_waits(self._settings.group.timeout_s)
        self._holds, self._only_shows = (folder, False), False
        self._proof = None
        return {}

    @remote
    def show_weights(self, folder: str | None, average: bool) -> dict[str, Any]:
        """Load a checkpoint's weights, or their moving average, into the module, to generate with them.

        Optimizer and generators stay unchanged, so `load` must come before the next step. The caller must have checked
        the files' hashes against the manifest.

        Args:
            folder: None = the weights from the agent's start, which only a restart can bring back.

        Returns:
            `{"read": True}` if a file was read; False if the module had these weights already.
        """
        if self._holds == (folder, average):
            return {"read": False}
        if folder is None:
            raise StepProtocolError(
                f"{self._role}: the weights from its start have been replaced; start this server again"
            )
        self.abandon()
        self._holds = None  # until all is copied
        self._only_shows = True
        part = self._folder(folder) / self._role / ("ema" if average else "weights")
        copy_tensors(part / (ADAPTER_FILE if self._is_lora else WEIGHTS_FILE), self._saved_tensors())
        self._holds = (folder, average)
        return {"read": True}

    def _folder(self, name: str) -> Path:
        if _FOLDER_PATTERN.fullmatch(name) is None:
            raise CheckpointError(f"{self._role}: `{name}` is not a checkpoint's name; expected one like step-00000012")
        return self._checkpoints / name


def _columns(files: list[ShardFile]) -> dict[str, Any]:
    return {
        "files": [file.path for file in files],
        "nbytes": [file.nbytes for file in files],
        "sha256": [file.sha256 for file in files],
    }
