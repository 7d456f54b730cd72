"""Making videos with the agents as they are: the maker of candidates next to the servers that train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mora_runtime.errors import RoleFailed
from mora_runtime.process.role import Role
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import RolesEnded, Supervisor
from mora_trainer.candidate_settings import CandidateOrder, CandidateSettings
from rich.console import Console

from mora_launch.checkpoints.trained_model import TrainedModel
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.venvs import CONTROL, ROOT
from mora_launch.jobs.job_servers import JobServers
from mora_launch.jobs.resources import divide_memory
from mora_launch.jobs.servers import child_variables, role_command, write_json

MAKER = "candidates"


class VideoMaking:
    """Makes ordered videos with the servers of the first replica, so that they do not depend on the number of replicas.

    Args:
        servers: of the configuration; those that are missing are started.
    """

    def __init__(self, config: TrainConfig, directory: RunDirectory, servers: JobServers, console: Console) -> None:
        self._config = config
        self._directory = directory
        self._servers = servers
        self._console = console
        self._makers: list[RoleProcess] = []

    def make(self, model: TrainedModel | None, orders: Sequence[CandidateOrder]) -> bool:
        """Make the videos that are not there yet; start nothing where all are.

        Args:
            model: None = what the configuration names, untrained.

        Returns:
            False when interrupted; what was made stays.

        Raises:
            MoraError: a server or the maker failed, and may not be started again; what was made stays.
        """
        if not _missing(orders):
            return True
        if model is not None:
            self._console.print(f"making videos with the {model.told({})}", markup=False, soft_wrap=True)
        self._servers.replace_dead()
        with self._servers.attended() as supervisor:
            while True:
                try:
                    done = self._make(supervisor, model, _missing(orders))
                    break
                except RolesEnded as ended:
                    self._servers.take_restart(ended)
                    self._servers.begin_generation(self._makers)
                    self._makers = []
                    self._servers.tell_restart(ended)
        if done and _missing(orders):
            raise RoleFailed("candidates: ended well but left videos out; see its log in the run directory")
        return done

    def _make(self, supervisor: Supervisor, model: TrainedModel | None, missing: tuple[CandidateOrder, ...]) -> bool:
        if model is None:
            self._servers.require_untouched()
        self._servers.start()
        settings = self._settings(model, missing).model_dump(mode="json")
        path = write_json(self._directory.role_folder(MAKER) / "settings.json", settings)
        # it loads its libraries while the servers load their models
        maker = supervisor.start(
            MAKER,
            role_command(CONTROL.python, "mora_trainer.candidates", path),
            variables=child_variables(1, "cpu"),
            output=None,
            folder=ROOT,
            generation=self._servers.generation,
        )
        self._makers = [maker]
        if not self._servers.wait_ready():
            return False
        if model is not None:
            self._servers.are_untouched = False
        maker.let_go()
        done = supervisor.wait_finished([maker]) == [0]
        supervisor.discard([maker])
        self._makers = []
        return done

    def _settings(self, model: TrainedModel | None, missing: tuple[CandidateOrder, ...]) -> CandidateSettings:
        config = self._config
        if model is not None:
            model.check_agents([stage.name for stage in self._servers.chain(0) if stage.has_optimizer])
        return CandidateSettings(
            run_dir=str(self._directory.path),
            chain=self._servers.chain(0),
            modulation=config.modulation,
            checkpoint=None if model is None else model.folder,
            average=model is not None and config.synthesis.weights == "average",
            embeddings=None if model is None or model.embeddings is None else str(model.embeddings),
            seed=config.seed,
            clip=config.clip,
            orders=missing,
            arena_nbytes=divide_memory(config)[Role.of("coordinator", 0)],
            spill_nbytes=config.spill_nbytes,
        )


def _missing(orders: Sequence[CandidateOrder]) -> tuple[CandidateOrder, ...]:
    return tuple(order for order in orders if not Path(order.folder).is_dir())
