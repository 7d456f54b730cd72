"""Training a round: the job of `mora train` on the round's dataset, in the run's own directory, from where it stands.

All rounds are one training: each goes on from the checkpoint of the one before: weights, moving average, z, optimizer
and generators carry over, and `mora checkpoint` and `--checkpoint RUN:STEP` see every round's model.
"""

from __future__ import annotations

from pathlib import Path

from mora_data.dataset import resolve_dataset
from mora_runtime.process.run_directory import RunDirectory
from mora_trainer.checkpoint.commit_record import committed
from rich.console import Console

from mora_launch.config.train_config import TrainConfig
from mora_launch.jobs.placement import check_devices, place
from mora_launch.jobs.servers import ServerGroup, check_agents
from mora_launch.jobs.training_processes import TrainingProcesses


def train_round(config: TrainConfig, directory: RunDirectory, dataset: Path, last_step: int, console: Console) -> bool:
    """Train to `last_step` steps of the whole run; False when interrupted, with a checkpoint.

    Raises:
        MoraError: the dataset does not fit, or a role failed.
    """
    info = committed(directory.checkpoints)
    if info is not None and info.step >= last_step:
        return True
    training = config.training.model_copy(update={"num_steps": last_step})
    data = config.data.model_copy(update={"path": str(dataset)})
    samples = config.samples.model_copy(update={"enabled": False})  # the report has held-out prompts instead
    config = config.model_copy(update={"training": training, "data": data, "samples": samples})
    checked = check_agents(config, console)
    check_devices(place(config, checked))
    resolved = resolve_dataset(data, config.clip, dataset.parent / "data")
    servers = ServerGroup(config, checked, directory)
    processes = TrainingProcesses(config, directory, resolved, servers, resume=info is not None, trace=None)
    return processes.run(console) == 0
