"""The room that a job's checkpoints need on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mora_runtime.errors import ConfigurationError
from mora_trainer.checkpoint.pin import is_kept

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.planning.role_memory import EMA_NBYTES, MASTER_NBYTES, MOMENTS_NBYTES
from mora_launch.terminal import format_nbytes


class DiskRoom(NamedTuple):
    """Bytes that the checkpoints of a job need at one time, and that there are for them."""

    num_checkpoints: int
    checkpoint_nbytes: int
    free_nbytes: int  # with what the run's present checkpoints take

    @property
    def needed_nbytes(self) -> int:
        """All checkpoints that exist at one time."""
        return self.num_checkpoints * self.checkpoint_nbytes


def disk_room(config: TrainConfig, checked: Mapping[str, CheckedOptions], run: Path) -> DiskRoom:
    """Return the room for the checkpoints of a job in this run."""
    nbytes = sum(
        checkpoint_nbytes(agent, checked[name]) for name, agent in config.agents.items() if checked[name].has_optimizer
    )
    training = config.training
    num_saves = -(-training.num_steps // training.checkpoint_every) if training.checkpoint_every else 1
    num_kept = min(num_saves, training.keep_checkpoints + 1)  # an old one is deleted when the next is complete
    present = sum(path.stat().st_size for path in _replaced_files(run / "checkpoints"))
    free = shutil.disk_usage(next(path for path in (run, *run.absolute().parents) if path.exists())).free
    return DiskRoom(num_kept, nbytes, free + present)


def _replaced_files(checkpoints: Path) -> Iterator[Path]:
    """Files of the present checkpoints that the job removes when it writes its own."""
    for path in checkpoints.rglob("*"):
        if path.is_file() and not is_kept(checkpoints, path.relative_to(checkpoints).parts[0]):
            yield path


def check_disk(config: TrainConfig, checked: Mapping[str, CheckedOptions], run: Path) -> None:
    """Refuse a job whose checkpoints do not fit on the disk of its run.

    Raises:
        ConfigurationError: names the room that they need and the room that is free.
    """
    room = disk_room(config, checked, run)
    if room.free_nbytes < room.needed_nbytes:
        raise ConfigurationError(
            f"{run}: {room.num_checkpoints} checkpoints of {format_nbytes(room.checkpoint_nbytes)} need "
            f"{format_nbytes(room.needed_nbytes)} (training.keep_checkpoints {config.training.keep_checkpoints}, and "
            f"the one that is being written), but the disk has {format_nbytes(room.free_nbytes)} for them: free disk "
            "space, lower training.keep_checkpoints, or choose another --run"
        )


def checkpoint_nbytes(agent: AgentConfig, checked: CheckedOptions) -> int:
    """Return the size of one trained agent's part of a checkpoint, over all replicas: weights, average and optimizer.

    Adapters (LoRA) and single trained layers are counted as nothing, because their sizes are not known here.
    """
    module = [c for c in checked.components if c.trainable]
    weights = sum(c.num_parameters * c.dtype_nbytes for c in module)
    num_trained = sum(c.num_parameters for c in module)
    has_average = agent.optimizer.ema_decay is not None
    if agent.trainable.scope == "lora":
        return 0
    if agent.trainable.scope == "none":
        return weights
    if agent.trainable.scope == "patterns":
        return weights * (2 if has_average else 1)
    master_and_moments = MASTER_NBYTES + (MOMENTS_NBYTES if agent.optimizer.kind == "adamw" else 0)
    average = 2 * EMA_NBYTES if has_average else 0  # in the optimizer's shards, and as weights of their own
    return weights + (master_and_moments + average) * num_trained
