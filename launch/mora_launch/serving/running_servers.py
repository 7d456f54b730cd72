"""Long-lived server processes: starts them, watches them in a thread, and restarts those that die."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from mora_runtime.errors import RoleFailed
from mora_runtime.files.shown_text import shown_line
from mora_runtime.process.role import Role
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import Supervisor
from rich.console import Console

from mora_launch.checkpoints.adapter_catalog import AdapterCatalog
from mora_launch.config.restarts import RestartBudget
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.jobs.machine import check_machine
from mora_launch.jobs.placement import check_devices, place
from mora_launch.jobs.resources import divide_memory
from mora_launch.jobs.run_status import StatusWriter
from mora_launch.jobs.servers import ServerGroup, check_agents
from mora_launch.serving.counters import Counters
from mora_launch.serving.feeding.server_adapters import ServerAdapters
from mora_launch.serving.feeding.server_worker import ServerWorker
from mora_launch.serving.models import served_models
from mora_launch.serving.server_pool import ServerPool
from mora_launch.serving.settings import ServingSettings
from mora_launch.serving.work_queue import WorkQueue
from mora_launch.weights.missing import refuse_missing

log = logging.getLogger(__name__)
_TELL_EVERY_S = 3.0


class RunningServers:
    """A context manager that runs the servers; `pool` submits work to them.

    Enter it in the main thread if it takes signals.

    Args:
        status: status of the run, which records servers and their deaths; its owner records the end of the run.
        takes_signals: as of `Supervisor`.
        traces: folder for the servers' traces; None disables tracing.
        on_watcher_death: called with the cause if the watching thread fails, to end the command; None sends SIGTERM to
            the main thread until it leaves the context.

    Attributes:
        death: why the watching thread failed, if it did. Leaving the context then raises it.
    """

    def __init__(
        self,
        config: TrainConfig,
        directory: RunDirectory,
        console: Console,
        status: StatusWriter | None = None,
        *,
        takes_signals: bool = True,
        traces: Path | None = None,
        on_watcher_death: Callable[[str], None] | None = None,
    ) -> None:
        self._console = console
        self._on_watcher_death = on_watcher_death
        self.death: str | None = None
        self._status = status
        check_machine()
        self._models = served_models(config)
        self._config = self._models.config
        checked = check_agents(self._config, console)
        refuse_missing(checked.values())
        if self._models.checkpoint is not None:
            bases = {name: agent.weights_folder for name, agent in checked.items()}
            console.print(self._models.checkpoint.told(bases), markup=False, soft_wrap=True)
        started = set(self._models.roles())
        check_devices([each for each in place(self._config, checked) if each.role in started], trains=False)
        adapters = self._adapters(config.serving, checked)
        allowed = {name: adapters.allowed_for(name) for name in checked}
        self._group = ServerGroup(self._config, checked, directory, train=False, traces=traces, adapters=allowed)
        self._supervisor = Supervisor(
            console.print,
            frozen_after_s=config.restarts.frozen_after_s,
            observe=None if status is None else status.observe,
            takes_signals=takes_signals,
        )
        self._budget = RestartBudget(config.restarts)
        self._children: dict[str, RoleProcess] = {}
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watches servers", daemon=True)
        queue, counters = WorkQueue(config.serving.max_batch, config.serving.gather_s), Counters()
        memory = divide_memory(self._config)
        workers = [
            ServerWorker(
                role, directory, queue, counters, allowed=self._models.allowed_capabilities(role.name),
                adapters=ServerAdapters(role.name, adapters, self._models.modulation.get(role.name)),
                arena_nbytes=memory[Role.of("coordinator", 0)], deadline_s=config.serving.call_deadline_s,
            )
            for role in self._models.roles()
        ]  # fmt: skip
        promised = {name: agent.capabilities or () for name, agent in self._config.agents.items()}
        self.pool = ServerPool(workers, queue, counters, promised, adapters)

    def _adapters(self, settings: ServingSettings, checked: Mapping[str, CheckedOptions]) -> AdapterCatalog:
        """Read the adapters that requests may name, and tell them."""
        trainable = [name for name, each in checked.items() if each.weights is not None]
        catalog = AdapterCatalog.read(settings.adapters, trainable, settings.max_adapter_nbytes)
        for entry in catalog.entries.values():
            self._console.print(f"adapters {entry}", markup=False, soft_wrap=True)
        return catalog

    def __enter__(self) -> RunningServers:
        self._supervisor.__enter__()
        try:
            self._start_all()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _start_all(self) -> None:
        started = self._start(self._models.roles(), 1)
        deadline_s = self._config.start_deadline_s
        with self._console.status("loading models ..."):
            if not self._supervisor.wait_ready(started, deadline_s=deadline_s):
                raise KeyboardInterrupt
            self._tell_ready()
            self.pool.start(deadline_s)
        if self._status is not None:
            self._status.enter("running")
        self._watcher.start()

    def readiness(self) -> dict[str, bool]:
        """Return for each server whether its models are loaded."""
        children = dict(self._children)  # a copy, because other threads change it
        return {role: role in children and children[role].is_ready for role in self._models.roles()}

    def _start(self, roles: Sequence[Role], generation: int) -> list[RoleProcess]:
        started = self._group.start(self._supervisor, time.time_ns(), generation, roles)
        self._children.update({child.role: child for child in started})
        return started

    def _tell_ready(self) -> None:
        for worker in self.pool.workers:
            child = self._children.get(worker.role)
            if child is not None and child.is_ready:
                worker.server_is_ready(child.generation)

    def _watch(self) -> None:
        try:
            self._watch_until_the_end()
        except BaseException as error:  # on any error: unwatched servers must not keep running
            self._die(error)

    def _die(self, error: BaseException) -> None:
        cause = f"the servers can no longer be watched ({type(error).__name__}: {shown_line(str(error))}); ending them"
        self.death = cause
        log.critical("the thread that watches the servers has failed", exc_info=error)
        self._console.print(cause, style="red", markup=False)
        if self._on_watcher_death is not None:
            self._on_watcher_death(cause)
            return
        main = threading.main_thread().ident
        while main is not None and not self._ending.is_set():
            signal.pthread_kill(main, signal.SIGTERM)
            self._ending.wait(_TELL_EVERY_S)  # repeated, because a signal before the handler is installed is lost

    def _watch_until_the_end(self) -> None:
        while not self._ending.is_set():
            for child in self._supervisor.look(timeout_s=0.25):
                self._replace(child)
            self._tell_ready()

    def _replace(self, child: RoleProcess) -> None:
        cause = f"{child.role} {child.exit_cause()}"
        self._supervisor.discard([child])
        self._children.pop(child.role, None)
        if self._ending.is_set():
            return
        is_coming_back = self._budget.take()
        self._tell_incident(
            cause, f"starting it again ({self._budget})" if is_coming_back
            else f"{self._budget} are used up, it is not restarted",
        )  # fmt: skip
        if is_coming_back:
            self._start([Role(child.role)], child.generation + 1)
        else:
            self.pool.give_up(Role(child.role).name)

    def _tell_incident(self, cause: str, then: str) -> None:
        self._console.print(f"{cause}; {then}", markup=False)
        if self._status is not None:
            self._status.incident(cause, then)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._watcher.is_alive():
            self._watcher.join(15.0)
        self.pool.close()
        # what the user interrupts ends at once; otherwise servers end in order, also after an error
        is_interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._supervisor.__exit__(kind if is_interrupted else None, None, None)
        if self.death is not None:
            raise RoleFailed(self.death) from error
