"""Making videos with the agents as they are: servers without optimizers, and the maker beside them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from mora_runtime.errors import RoleFailed
from mora_runtime.process.role import Role
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import Supervisor
from mora_trainer.candidate_settings import CandidateOrder, CandidateSettings
from rich.console import Console

from mora_launch.checkpoints.trained_model import TrainedModel
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.venvs import ENVIRONMENTS, ROOT
from mora_launch.jobs.resources import divide_memory
from mora_launch.jobs.servers import ServerGroup, check_agents, child_variables, role_command, write_json

MAKER = "candidates"


def make_videos(
    config: TrainConfig,
    directory: RunDirectory,
    model: TrainedModel | None,
    orders: Sequence[CandidateOrder],
    console: Console,
) -> bool:
    """Make the ordered videos that are not there yet; starts nothing where all are.

    Args:
        model: None is what the configuration names, untrained.

    Returns:
        False when interrupted; what was made stays.

    Raises:
        MoraError: a server or the maker failed; what was made stays.
    """
    missing = tuple(order for order in orders if not Path(order.folder).is_dir())
    if not missing:
        return True
    loading = config if model is None else model.put_into(config)
    # Candidates are made by one chain whatever the number of replicas, so that they do not depend on it.
    loading = loading.model_copy(update={"replicas": 1})
    checked = check_agents(loading, console)
    with Supervisor(console.print) as supervisor:
        servers = ServerGroup(loading, checked, directory, train=False).start(supervisor, time.time_ns())
        with console.status("loading models ..."):
            if not supervisor.wait_ready(servers, deadline_s=config.start_deadline_s):
                return False
        settings = _settings(loading, directory, model, missing)
        path = write_json(directory.role_folder(MAKER) / "settings.json", settings.model_dump(mode="json"))
        maker = supervisor.start(
            MAKER,
            role_command("control", "mora_trainer.candidates", path),
            variables=child_variables(1, "cpu"),
            output=None,
            folder=ROOT,
        )
        done = supervisor.wait_finished([maker]) == [0]
    if done and not all(Path(order.folder).is_dir() for order in orders):
        raise RoleFailed("candidates: ended well but left videos out; see its log in the run directory")
    return done


def _settings(
    config: TrainConfig, directory: RunDirectory, model: TrainedModel | None, orders: tuple[CandidateOrder, ...]
) -> CandidateSettings:
    embeddings = None if model is None or model.embeddings is None else str(model.embeddings)
    return CandidateSettings(
        run_dir=str(directory.path),
        servers={name: Role.of(name, 0) for name, _ in config.agents.items()},
        lock_hashes={name: ENVIRONMENTS[agent.environment].lock_hash for name, agent in config.agents.items()},
        modulation=config.modulation,
        embeddings=embeddings,
        seed=config.seed,
        clip=config.clip,
        orders=orders,
        arena_nbytes=divide_memory(config)[Role.of("coordinator", 0)],
        spill_nbytes=config.spill_nbytes,
    )
