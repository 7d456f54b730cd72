"""The processes of one training job: started in order, started again where one has died, ended together."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_runtime.errors import MoraError, RoleFailed
from mora_runtime.files.shown_text import shown_line
from mora_runtime.process.role import Role
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import RolesEnded, Supervisor
from mora_trainer.checkpoint.commit_record import committed
from mora_trainer.settings import CoordinatorSettings, RemoteAgentSettings
from rich.console import Console

from mora_launch.config.restarts import RestartBudget
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.venvs import ENVIRONMENTS, ROOT
from mora_launch.jobs.resources import divide_memory
from mora_launch.jobs.run_status import StatusWriter
from mora_launch.jobs.servers import (
    ServerGroup,
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
    """Servers and coordinators of one job.

    A generation is a set of processes that work together. When one dies, coordinators are started again and go on from
    the committed checkpoint. So are servers, except those that live on beside a single replica: they keep their models
    and load the checkpoint's state. With several replicas the servers of an agent are members of one group for
    collectives, which does not survive the loss of a member.
    """

    def __init__(
        self,
        config: TrainConfig,
        directory: RunDirectory,
        dataset: Path,
        servers: ServerGroup,
        *,
        resume: bool,
        trace: TraceRequest | None,
    ) -> None:
        self._config = config
        self._directory = directory
        self._dataset = dataset
        self._group = servers
        self._resume = resume
        self._trace = trace
        self._generation = 1
        self._attempt = time.time_ns()
        self._servers: list[RoleProcess] = []
        self._coordinators: list[RoleProcess] = []

    def run(self, console: Console) -> int:
        """Start everything in order, wait for the end, leave nothing behind. Returns the exit code.

        Raises:
            RoleFailed: a role could not start, or died and may not be started again; or supervision itself failed.
        """
        console.print(f"run {self._directory.path}")
        with StatusWriter(self._directory.path, "train") as status:
            try:
                code = self._run_supervised(status, console)
            except MoraError:
                raise
            except Exception as error:  # of the launcher itself, which has ended every process by now
                log.critical("the supervision of the job has failed", exc_info=error)
                raise RoleFailed(
                    f"the job can be supervised no more ({type(error).__name__}: {shown_line(str(error))}); every "
                    "process was ended, the last committed checkpoint is intact: go on with --resume"
                ) from error
            status.end("finished" if code == 0 else "interrupted")
        return code

    def _run_supervised(self, status: StatusWriter, console: Console) -> int:
        restarts = self._config.restarts
        budget = RestartBudget(restarts)
        with Supervisor(console.print, frozen_after_s=restarts.frozen_after_s, observe=status.observe) as supervisor:
            while True:
                try:
                    return self._run_generation(supervisor, status, console)
                except RolesEnded as ended:
                    if not ended.is_recoverable or not budget.take():
                        used = f"; {budget} are used up" if ended.is_recoverable else ""
                        raise RoleFailed(f"{ended}\nevery other process was ended{used}") from None
                    self._clear(supervisor)
                    plan = f"{self._plan()} ({budget})"
                    status.incident(str(ended), plan)
                    console.print(f"{ended}\n{plan}", style="yellow", markup=False)

    def _run_generation(self, supervisor: Supervisor, status: StatusWriter, console: Console) -> int:
        status.enter("starting")
        living = {server.role for server in self._servers}
        self._servers += self._group.start(supervisor, self._attempt, self._generation, skip=living)
        # they load their libraries meanwhile, which takes as long as the models of a small job
        self._coordinators = [self._start_coordinator(supervisor, r) for r in range(self._config.replicas)]
        with console.status("loading models ..."):
            ready = supervisor.wait_ready(self._servers, deadline_s=self._config.start_deadline_s)
        if not ready:
            console.print("stopped before training began")
            return EXIT_INTERRUPTED
        for coordinator in self._coordinators:
            coordinator.let_go()
        status.enter("running")
        codes = supervisor.wait_finished(self._coordinators)
        return EXIT_INTERRUPTED if any(codes) else 0

    def _clear(self, supervisor: Supervisor) -> None:
        """End what cannot go on, and prepare the next generation."""
        supervisor.discard(self._coordinators)
        self._coordinators = []
        lost = self._servers if self._must_restart_all() else [s for s in self._servers if s.process.poll() is not None]
        supervisor.discard(lost)
        self._servers = [server for server in self._servers if server not in lost]
        self._generation += 1
        self._attempt = time.time_ns()
        self._resume = True

    def _must_restart_all(self) -> bool:
        # without a checkpoint the state to go back to is what the models were loaded with
        return self._config.replicas > 1 or self._committed_step() is None

    def _committed_step(self) -> int | None:
        info = committed(self._directory.checkpoints)
        return None if info is None else info.step

    def _plan(self) -> str:
        kept = ", ".join(sorted(server.role for server in self._servers))
        step = self._committed_step() or 0
        beside = f" beside {kept}" if kept else ""
        return f"going on from step {step} as generation {self._generation}{beside}"

    def _start_coordinator(self, supervisor: Supervisor, replica: int) -> RoleProcess:
        role = Role.of("coordinator", replica)
        settings = self._coordinator_settings(replica).model_dump(mode="json")
        path = write_json(self._directory.role_folder(role) / "settings.json", settings)
        return supervisor.start(
            role,
            role_command("control", "mora_trainer", path),
            variables=child_variables(1, "cpu"),
            output=None if replica == 0 else self._directory.logs / f"{role}.{self._generation}.out",
            folder=ROOT,
            generation=self._generation,
        )

    def _coordinator_settings(self, replica: int) -> CoordinatorSettings:
        config = self._config
        agents = {
            name: RemoteAgentSettings(
                name=name,
                server=Role.of(name, replica),
                lock_hash=ENVIRONMENTS[agent.environment].lock_hash,
                learning_rate=agent.learning_rate,
                modulation_learning_rate=agent.modulation_learning_rate,
            )
            for name, agent in config.agents.items()
        }
        return CoordinatorSettings(
            run_dir=str(self._directory.path),
            replica=replica,
            generation=self._generation,
            num_replicas=config.replicas,
            rendezvous=rendezvous(self._directory, "coordinator", self._attempt),
            seed=config.seed,
            dataset=str(self._dataset),
            clip=config.clip,
            image=agents["image"],
            video=agents["video"],
            modulation=config.modulation,
            training=config.training,
            samples=config.samples,
            shuffle=config.data.shuffle,
            resume=self._resume,
            arena_nbytes=divide_memory(config)[Role.of("coordinator", replica)],
            spill_nbytes=config.spill_nbytes,
            lock_hashes={name: environment.lock_hash for name, environment in ENVIRONMENTS.items()},
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
