"""The server processes of a configuration, which outlive one set of the processes that call them.

`mora train` runs its coordinators next to them. `mora synthesize` runs the maker of candidates and the coordinators of
every round in turn, so that models are loaded once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from mora_runtime.errors import RoleFailed
from mora_runtime.process.background_watch import BackgroundWatch
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import RolesEnded, Supervisor
from mora_trainer.checkpoint.commit_record import committed
from mora_trainer.settings import StageSettings
from rich.console import Console

from mora_launch.config.restarts import RestartBudget
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.jobs.chain import stage_settings
from mora_launch.jobs.placement import check_devices, place
from mora_launch.jobs.servers import ServerGroup

Observer = Callable[[Sequence[RoleProcess]], None]


class JobServers:
    """A context manager, entered in the main thread, whose exit ends every server. Nothing runs before `start`.

    A generation is a set of processes that work together. When one dies, its workers (coordinators, or the maker of
    candidates) are started again as the next generation. So are servers, except those that survive in a job of a single
    replica that has a checkpoint: they keep their models and load its state. With several replicas the servers of an
    agent are members of one group for collectives, which does not survive the loss of a member.

    Args:
        checked: every agent's options, as `check_agents` returns them.
        traces: folder that every server's trace goes to; None traces nothing.

    Attributes:
        generation: of the servers that are started next, counted from 1.
        attempt: distinguishes this start of processes from every other one in the run, in names of rendezvous files.
        budget: restarts that this job may still make.
        are_untouched: False from the moment when a worker may change weights, until all servers are started again.
    """

    def __init__(
        self,
        config: TrainConfig,
        checked: Mapping[str, CheckedOptions],
        directory: RunDirectory,
        console: Console,
        *,
        traces: Path | None = None,
    ) -> None:
        self._config = config
        self._checked = checked
        self._directory = directory
        self._console = console
        self._group = ServerGroup(config, checked, directory, traces=traces)
        self._supervisor = Supervisor(
            console.print, frozen_after_s=config.restarts.frozen_after_s, observe=self._observe
        )
        self._watch = BackgroundWatch(self._supervisor)
        self._observer: Observer | None = None
        self._is_attended = False
        self._servers: list[RoleProcess] = []
        self.generation = 1
        self.attempt = time.time_ns()
        self.budget = RestartBudget(config.restarts)
        self.are_untouched = True

    def __enter__(self) -> JobServers:
        self._supervisor.__enter__()
        self._supervisor.give_signals_back()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._supervisor.take_signals()
        try:
            self._watch.stop()
        finally:
            self._supervisor.__exit__(kind, error, trace)

    def _observe(self, children: Sequence[RoleProcess]) -> None:
        if self._observer is not None:
            self._observer(children)

    @contextlib.contextmanager
    def attended(self, observe: Observer | None = None) -> Iterator[Supervisor]:
        """Supervise in the main thread while the block runs: it may wait for children, and Ctrl-C is counted there.

        Outside of such a block Ctrl-C raises KeyboardInterrupt, as in any program, and a thread watches the servers.

        Args:
            observe: called about twice a second with all children, while they are waited for.
        """
        if self._is_attended:
            yield self._supervisor
            return
        self._supervisor.take_signals()
        self._watch.stop()
        self._is_attended, self._observer = True, observe
        try:
            yield self._supervisor
        finally:
            self._is_attended, self._observer = False, None
            self._supervisor.give_signals_back()
            self._watch.start()

    def chain(self, replica: int) -> tuple[StageSettings, ...]:
        """Return a worker's settings of the chain of one replica."""
        return stage_settings(self._config, self._checked, self._group.lock_hashes, replica)

    @property
    def environment_hashes(self) -> dict[str, str]:
        """By name, the hash of the launcher's environment and of every environment that an agent uses."""
        return self._group.environment_hashes

    def start(self) -> None:
        """Start the servers that are missing; `wait_ready` waits for them."""
        living = {server.role for server in self._servers}
        if not living:
            check_devices(place(self._config, self._checked))
        with self.attended() as supervisor:
            missing = [role for role in self._group.roles if role not in living]
            self._servers += self._group.start(supervisor, self.attempt, self.generation, missing)

    def wait_ready(self) -> bool:
        """Wait until every server has loaded its models; False when interrupted meanwhile.

        Raises:
            RolesEnded: a child died or reported failure.
            RoleFailed: a server was not ready in time.
        """
        with self.attended() as supervisor, self._console.status("loading models ..."):
            return supervisor.wait_ready(self._servers, deadline_s=self._config.start_deadline_s)

    def begin_attempt(self) -> None:
        """Workers that are started from now on must not meet those before them in a rendezvous."""
        self.attempt = time.time_ns()

    def take_restart(self, ended: RolesEnded) -> None:
        """Count a restart after a death.

        Raises:
            RoleFailed: it may not be followed by one. Leaving the context ends the processes that still run.
        """
        if not ended.is_recoverable or not self.budget.take():
            used = f"; {self.budget} are used up" if ended.is_recoverable else ""
            raise RoleFailed(f"{ended}\nevery other process was ended{used}") from None

    def begin_generation(self, workers: Sequence[RoleProcess]) -> None:
        """End the workers and the servers that cannot continue; what is started from now on is the next generation."""
        with self.attended() as supervisor:
            supervisor.discard(workers)
        self._discard(self._servers if self._must_restart_all() else self._dead())

    def _dead(self) -> list[RoleProcess]:
        return [server for server in self._servers if server.process.poll() is not None]

    def _must_restart_all(self) -> bool:
        # without a checkpoint the state to go back to is what the models were loaded with
        return self._config.replicas > 1 or self.committed_step() is None

    def _discard(self, lost: Sequence[RoleProcess]) -> None:
        with self.attended() as supervisor:
            supervisor.discard(lost)
        self._servers = [server for server in self._servers if server not in lost]
        self.are_untouched = self.are_untouched or not self._servers
        self.generation += 1
        self.begin_attempt()

    def committed_step(self) -> int | None:
        """Steps of the checkpoint that workers resume from; None where nothing has been committed."""
        info = committed(self._directory.checkpoints)
        return None if info is None else info.step

    def survivors(self) -> str:
        """The servers that keep their models in the next generation, for a message; empty where there are none."""
        kept = ", ".join(sorted(server.role for server in self._servers))
        return f" beside {kept}" if kept else ""

    def replace_dead(self) -> None:
        """Begin the next generation where a server has died while no worker ran.

        Raises:
            RoleFailed: no restart is left.
        """
        dead = self._dead()
        if not dead:
            return
        causes = ", ".join(f"{server.role} {server.exit_cause()}" for server in dead)
        is_recoverable = all(server.is_recoverable for server in dead)
        ended = RolesEnded(f"{causes}, between two parts of the job", is_recoverable=is_recoverable)
        self.take_restart(ended)
        self.begin_generation([])
        self.tell_restart(ended)

    def tell_restart(self, ended: RolesEnded) -> None:
        """Print what died and what follows from it."""
        plan = f"continuing as generation {self.generation}{self.survivors()} ({self.budget})"
        self._console.print(f"{ended}\n{plan}", style="yellow", markup=False)

    def end(self) -> None:
        """End all servers; `start` starts them again, as the next generation."""
        if self._servers:
            self._discard(self._servers)

    def require_untouched(self) -> None:
        """End the servers where a worker may have changed weights; `start` then loads the configuration's."""
        if not self.are_untouched:
            self.end()
