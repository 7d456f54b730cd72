"""The processes of one training job: started in order, started again where one has died, ended together."""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_runtime.errors import MoraError, RoleFailed
from mora_runtime.files.shown_text import shown_line
from mora_runtime.process.role import Role
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import RolesEnded, Supervisor
from mora_trainer.settings import CoordinatorSettings
from rich.console import Console

from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.venvs import ROOT
from mora_launch.jobs.job_servers import JobServers
from mora_launch.jobs.resources import divide_memory
from mora_launch.jobs.run_status import StatusWriter
from mora_launch.jobs.servers import (
    child_variables,
    rendezvous,
    role_command,
    trace_file,
    traces_folder,
    write_json,
)

log = logging.getLogger(__name__)
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class TraceRequest:
    """What to record of a job besides what it does: every role's trace, as `<run>/trace/<role>.jsonl`."""

    torch_step: int | None  # the step that torch's profiler records too, counted from 0


class TrainingProcesses:
    """Coordinators of one job, next to its servers. After a death they start again, from the committed checkpoint.

    Args:
        keeps_servers: True if the caller opens and closes the servers; False opens and closes them here.
    """

    def __init__(
        self,
        config: TrainConfig,
        directory: RunDirectory,
        dataset: Path,
        servers: JobServers,
        *,
        resume: bool,
        trace: TraceRequest | None,
        keeps_servers: bool = False,
    ) -> None:
        self._config = config
        self._directory = directory
        self._dataset = dataset
        self._servers = servers
        self._resume = resume
        self._trace = trace
        self._keeps_servers = keeps_servers
        self._coordinators: list[RoleProcess] = []

    def run(self, console: Console) -> int:
        """Start everything in order, wait for the end, leave nothing behind. Returns the exit code.

        Raises:
            RoleFailed: a role could not start, or died and may not be started again; or supervision itself failed.
        """
        console.print(f"run {self._directory.path}")
        with StatusWriter(self._directory.path, "train") as status:
            try:
                with contextlib.nullcontext() if self._keeps_servers else self._servers:
                    code = self._run_supervised(status, console)
            except MoraError:
                raise
            except Exception as error:  # of the launcher itself, which has ended every process by now
                log.critical("the supervision of the job has failed", exc_info=error)
                raise RoleFailed(
                    f"the job can be supervised no more ({type(error).__name__}: {shown_line(str(error))}); every "
                    "process was ended, the last committed checkpoint is intact: continue with --resume"
                ) from error
            status.end("finished" if code == 0 else "interrupted")
        return code

    def _run_supervised(self, status: StatusWriter, console: Console) -> int:
        self._servers.begin_attempt()
        with self._servers.attended(status.observe) as supervisor:
            while True:
                try:
                    return self._run_generation(supervisor, status, console)
                except RolesEnded as ended:
                    self._servers.take_restart(ended)
                    self._servers.begin_generation(self._coordinators)
                    self._coordinators = []
                    self._resume = True
                    plan = f"{self._plan()} ({self._servers.budget})"
                    status.incident(str(ended), plan)
                    console.print(f"{ended}\n{plan}", style="yellow", markup=False)

    def _run_generation(self, supervisor: Supervisor, status: StatusWriter, console: Console) -> int:
        status.enter("starting")
        self._servers.start()
        # they load their libraries meanwhile, which takes as long as the models of a small job
        self._coordinators = [self._start_coordinator(supervisor, r) for r in range(self._config.replicas)]
        if not self._servers.wait_ready():
            console.print("stopped before training began")
            return EXIT_INTERRUPTED
        self._servers.are_untouched = False
        for coordinator in self._coordinators:
            coordinator.let_go()
        status.enter("running")
        codes = supervisor.wait_finished(self._coordinators)
        supervisor.discard(self._coordinators)  # the servers may outlive them
        self._coordinators = []
        return EXIT_INTERRUPTED if any(codes) else 0

    def _plan(self) -> str:
        step = self._servers.committed_step() or 0
        return f"going on from step {step} as generation {self._servers.generation}{self._servers.survivors()}"

    def _start_coordinator(self, supervisor: Supervisor, replica: int) -> RoleProcess:
        role = Role.of("coordinator", replica)
        settings = self._coordinator_settings(replica).model_dump(mode="json")
        path = write_json(self._directory.role_folder(role) / "settings.json", settings)
        return supervisor.start(
            role,
            role_command(Path(sys.executable), "mora_trainer", path),  # the launcher's environment has the trainer
            variables=child_variables(1, "cpu"),
            output=None if replica == 0 else self._directory.logs / f"{role}.{self._servers.generation}.out",
            folder=ROOT,
            generation=self._servers.generation,
        )

    def _coordinator_settings(self, replica: int) -> CoordinatorSettings:
        config = self._config
        return CoordinatorSettings(
            run_dir=str(self._directory.path),
            replica=replica,
            generation=self._servers.generation,
            num_replicas=config.replicas,
            rendezvous=rendezvous(self._directory, "coordinator", self._servers.attempt),
            seed=config.seed,
            dataset=str(self._dataset),
            clip=config.clip,
            chain=self._servers.chain(replica),
            modulation=config.modulation,
            training=config.training,
            samples=config.samples,
            shuffle=config.data.shuffle,
            resume=self._resume,
            arena_nbytes=divide_memory(config)[Role.of("coordinator", replica)],
            spill_nbytes=config.spill_nbytes,
            lock_hashes=self._servers.environment_hashes,
            **self._trace_settings(replica),
        )

    def _trace_settings(self, replica: int) -> dict[str, Any]:
        if self._trace is None:
            return {}
        folder = traces_folder(self._directory.path)
        return {
            "trace": trace_file(folder, Role.of("coordinator", replica)),
            "torch_trace_step": self._trace.torch_step,
        }
