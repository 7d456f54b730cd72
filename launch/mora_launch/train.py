"""`mora train`: from a configuration to running processes, and to their end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_runtime.errors import RunExists
from mora_runtime.run_directory import RunDirectory
from mora_trainer.dataset import resolve_dataset
from mora_trainer.settings import CoordinatorSettings, RemoteAgentSettings
from rich.console import Console

from mora_launch.child import Child
from mora_launch.config import TrainConfig
from mora_launch.environments import ENVIRONMENTS, ROOT
from mora_launch.placement import check_devices, place, placement_table
from mora_launch.resources import divide_memory
from mora_launch.servers import (
    ServerGroup,
    check_agents,
    child_variables,
    rendezvous,
    role_command,
    trace_file,
    write_json,
)
from mora_launch.supervisor import Supervisor

EXIT_INTERRUPTED = 130
TRACES = "trace"  # folder of a run
_CONFIG_COPY = "config.json"


@dataclass(frozen=True)
class TraceRequest:
    """What to record of a job besides what it does: every role's trace, as `<run>/trace/<role>.jsonl`."""

    torch_step: int | None  # the step that torch's profiler records too, counted from 0


def train(
    config: TrainConfig,
    *,
    run: Path | None,
    resume: bool,
    dry_run: bool,
    console: Console,
    trace: TraceRequest | None = None,
) -> int:
    """Run one joint training job to its end.

    Args:
        trace: None records nothing; the job is the same either way.

    Returns:
        0 when every step was done, 130 when stopped by Ctrl-C (with a checkpoint).

    Raises:
        MoraError: refused before anything started, or a role failed; the text says which and what to do.
    """
    checked = check_agents(config, console)
    roles = place(config, checked)
    if dry_run:
        console.print(placement_table(roles))
        return 0
    check_devices(roles)
    path = run or ROOT / "runs" / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not resume and (path / _CONFIG_COPY).exists():
        raise RunExists(f"{path} already holds a run; give --resume to go on with it, or another --run")
    with RunDirectory.create(path, lock=True) as directory:
        dataset = resolve_dataset(config.data, config.clip, directory.path / "data")
        write_json(directory.path / _CONFIG_COPY, config.model_dump(mode="json"))
        job = TrainingProcesses(config, directory, dataset, attempt=time.time_ns(), resume=resume, trace=trace)
        traces = None if trace is None else traces_folder(directory.path)
        return job.run(ServerGroup(config, checked, directory, attempt=job.attempt, traces=traces), console)


def traces_folder(run: Path) -> Path:
    """Folder of a run that its roles' traces go to, made when absent."""
    folder = run / TRACES
    folder.mkdir(exist_ok=True)
    return folder


class TrainingProcesses:
    """Servers and coordinators of one job, from their start to their end."""

    def __init__(
        self,
        config: TrainConfig,
        directory: RunDirectory,
        dataset: Path,
        *,
        attempt: int,
        resume: bool,
        trace: TraceRequest | None,
    ) -> None:
        self.attempt = attempt
        self._config = config
        self._directory = directory
        self._dataset = dataset
        self._resume = resume
        self._trace = trace

    def run(self, servers: ServerGroup, console: Console) -> int:
        """Start everything in order, wait for the end, leave nothing behind. Returns the exit code."""
        console.print(f"run {self._directory.path}")
        with Supervisor(console.print) as supervisor:
            children = servers.start(supervisor)
            with console.status("loading models ..."):
                ready = supervisor.wait_ready(children, deadline_s=self._config.start_deadline_s)
            if not ready:
                console.print("stopped before training began")
                return EXIT_INTERRUPTED
            coordinators = [self._start_coordinator(supervisor, r) for r in range(self._config.replicas)]
            codes = supervisor.wait_finished(coordinators)
        return EXIT_INTERRUPTED if any(codes) else 0

    def _start_coordinator(self, supervisor: Supervisor, replica: int) -> Child:
        role = f"coordinator.{replica}"
        settings = self._coordinator_settings(replica).model_dump(mode="json")
        path = write_json(self._directory.role_folder(role) / "settings.json", settings)
        return supervisor.start(
            role,
            role_command("control", "mora_trainer", path),
            variables=child_variables(1, "cpu"),
            output=None if replica == 0 else self._directory.logs / f"{role}.out",
            folder=ROOT,
        )

    def _coordinator_settings(self, replica: int) -> CoordinatorSettings:
        config = self._config
        agents = {
            name: RemoteAgentSettings(
                name=name,
                server=f"{name}.{replica}",
                lock_hash=ENVIRONMENTS[agent.environment].lock_hash,
                learning_rate=agent.learning_rate,
                modulation_learning_rate=agent.modulation_learning_rate,
            )
            for name, agent in config.agents.items()
        }
        return CoordinatorSettings(
            run_dir=str(self._directory.path),
            replica=replica,
            num_replicas=config.replicas,
            rendezvous=rendezvous(self._directory, "coordinator", self.attempt),
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
            arena_nbytes=divide_memory(config)[f"coordinator.{replica}"],
            spill_nbytes=config.spill_nbytes,
            lock_hashes={name: environment.lock_hash for name, environment in ENVIRONMENTS.items()},
            **self._trace_settings(replica),
        )

    def _trace_settings(self, replica: int) -> dict[str, Any]:
        if self._trace is None:
            return {}
        folder = traces_folder(self._directory.path)
        return {
            "trace": trace_file(folder, f"coordinator.{replica}"),
            "torch_trace_step": self._trace.torch_step,
        }
