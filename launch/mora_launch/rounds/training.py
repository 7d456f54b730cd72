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
from mora_launch.jobs.job_servers import JobServers
from mora_launch.jobs.training_processes import TrainingProcesses


def train_round(
    config: TrainConfig, directory: RunDirectory, servers: JobServers, dataset: Path, last_step: int, console: Console
) -> bool:
    """Train to `last_step` steps of the whole run; False when interrupted, with a checkpoint.

    Args:
        servers: of the configuration; they stay.

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
    resolved = resolve_dataset(data, config.clip, dataset.parent / "data", config.chain_names)
    servers.replace_dead()
    resume = info is not None
    if not resume:
        servers.require_untouched()  # no checkpoint brings the state back that training starts from
    processes = TrainingProcesses(config, directory, resolved, servers, resume=resume, trace=None, keeps_servers=True)
    return processes.run(console) == 0
