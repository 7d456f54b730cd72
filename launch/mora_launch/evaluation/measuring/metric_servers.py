"""Servers of metric agents: started together, watched, started again after a death, called from one thread.

All of them read a video's frames from the launcher's memory, so the launcher has one session for all its clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mora_runtime.errors import MoraError, PeerDied, RoleFailed
from mora_runtime.process.role import Role
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import Supervisor
from rich.console import Console

from mora_launch.config.restarts import RestartBudget
from mora_launch.config.train_config import TrainConfig
from mora_launch.evaluation.measuring.checked_metrics import CheckedMetric
from mora_launch.evaluation.suite.dimensions import FEATURES
from mora_launch.jobs.machine import check_machine
from mora_launch.jobs.placement import check_devices, place
from mora_launch.jobs.servers import ServerGroup
from mora_launch.limits import CONTROL_DEADLINE_S

if TYPE_CHECKING:
    from mora_runtime import Client, PendingReply, Session

_TICK_S = 0.05  # between looks at the processes while servers measure
_IDLE_S = 0.5


class MetricServer:
    """One server process, over all its generations.

    Attributes:
        pending: the call that it works on; None while it is idle.
        about: answer of the agent's method `describe`.
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        self.metric = role.name
        self.process: RoleProcess | None = None
        self.client: Client | None = None
        self.pending: PendingReply | None = None
        self.about: dict[str, Any] = {}

    @property
    def is_idle(self) -> bool:
        """Whether it can take a call."""
        return self.client is not None and self.pending is None

    def disconnect(self) -> None:
        """Close the connection; what it worked on has no answer."""
        if self.client is not None:
            self.client.close()
        self.client = self.pending = None


class MetricServers:
    """A context manager, entered in the main thread, that runs the servers.

    Args:
        config: its agents are the metrics.
        checked: the metrics that can be used.
        roles: the servers to start.
        frames_nbytes: of videos in the launcher's memory at once.

    Attributes:
        servers: in the order of the roles.
        lost: of each metric without servers, why, in one line.
    """

    def __init__(
        self,
        config: TrainConfig,
        checked: Mapping[str, CheckedMetric],
        roles: Sequence[Role],
        directory: RunDirectory,
        console: Console,
        *,
        frames_nbytes: int,
        deadline_s: float,
    ) -> None:
        check_machine()
        options = {name: each.options for name, each in checked.items()}
        config = config.model_copy(update={"agents": {name: config.agents[name] for name in checked}})
        check_devices([each for each in place(config, options) if each.role in set(roles)], trains=False)
        self._config = config
        self._directory = directory
        self._console = console
        self._frames_nbytes = frames_nbytes
        self._deadline_s = deadline_s
        self._group = ServerGroup(config, options, directory, train=False)
        self._supervisor = Supervisor(console.print, frozen_after_s=config.restarts.frozen_after_s)
        self._budget = RestartBudget(config.restarts)
        self._session: Session | None = None
        self.servers = [MetricServer(role) for role in roles]
        self.lost: dict[str, str] = {}

    def __enter__(self) -> MetricServers:
        from mora_runtime import Session

        self._supervisor.__enter__()
        try:
            self._session = Session.open(
                self._directory, "evaluation", arena_budget_nbytes=self._frames_nbytes, warm_nbytes=0, spin_ns=0
            )
            self._start(self.servers, generation=1)
            self._wait_loaded()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.disconnect()
        if self._session is not None:
            self._session.close()
        is_interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._supervisor.__exit__(kind if is_interrupted else None, None, None)

    def _start(self, servers: Sequence[MetricServer], generation: int) -> None:
        roles = [server.role for server in servers]
        for server, process in zip(
            servers, self._group.start(self._supervisor, time.time_ns(), generation, roles), strict=True
        ):
            server.process = process

    def _wait_loaded(self) -> None:
        """Wait until every server is connected or lost."""
        deadline = time.monotonic() + self._config.start_deadline_s
        with self._console.status("loading metrics ..."):
            while any(server.client is None for server in self._living()):
                self.look(_IDLE_S)
                if time.monotonic() > deadline:
                    self._give_up_loading()

    def _give_up_loading(self) -> None:
        for server in [each for each in self._living() if each.client is None]:
            self._remove(server, f"was not ready in {self._config.start_deadline_s:.0f} s")

    def _living(self) -> list[MetricServer]:
        return [server for server in self.servers if server.process is not None]

    def of(self, metric: str) -> list[MetricServer]:
        """Return the servers of a metric that run."""
        return [server for server in self._living() if server.metric == metric]

    def about(self, metric: str) -> Mapping[str, Any]:
        """Return what a metric's agent says about itself; empty if it has no server."""
        return next((server.about for server in self.of(metric) if server.about), {})

    @property
    def wake(self) -> Callable[[], None]:
        """End a wait early; may be called by any thread."""
        return self._supervisor.wake

    def empty_frames(self, shape: tuple[int, ...]) -> Any:
        """Return an uninitialised uint8 tensor in memory that servers read without a copy."""
        import torch

        assert self._session is not None
        return self._session.empty(shape, torch.uint8)

    def look(self, timeout_s: float = 0.0) -> list[MetricServer]:
        """Wait for events, then connect servers that are ready; return those that have died.

        Raises:
            KeyboardInterrupt: the user asked to stop.
        """
        died = []
        for process in self._supervisor.look(timeout_s=timeout_s):
            server = next(each for each in self.servers if each.process is process)
            died.append(server)
            self._replace(server)
        if self._supervisor.num_interrupts:
            raise KeyboardInterrupt
        for server in self._living():
            if server.client is None and server.process is not None and server.process.is_ready:
                self._connect(server)
        return died

    def wait(self) -> list[MetricServer]:
        """Wait until an answer or another event comes; return servers that have died."""
        from mora_runtime.rpc.client import wait_for_messages

        busy = [each.client for each in self.servers if each.client is not None and each.pending is not None]
        if not busy:
            return self.look(_IDLE_S)
        wait_for_messages(busy, _TICK_S)
        return self.look()

    def _connect(self, server: MetricServer) -> None:
        assert self._session is not None
        try:
            client = self._session.connect(server.role, deadline_s=CONTROL_DEADLINE_S)
            server.about = client.call(server.metric, "describe", {}, deadline_s=self._deadline_s).values
            server.client = client
        except PeerDied:
            return  # `look` sees its end
        except MoraError as error:
            self._remove(server, f"cannot be used: {error}")

    def _replace(self, server: MetricServer) -> None:
        """Start a dead server again, unless that would only repeat its error or has been done too often."""
        assert server.process is not None
        process = server.process
        cause = process.exit_cause()
        if not process.is_recoverable or not self._budget.take():
            used = f"; {self._budget} are used up" if process.is_recoverable else ""
            self._remove(server, f"{cause}{used}")
            return
        self._console.print(f"{server.role} {cause}; starting it again ({self._budget})", markup=False)
        server.disconnect()
        self._supervisor.discard([process])
        self._start([server], process.generation + 1)

    def _remove(self, server: MetricServer, cause: str) -> None:
        """Continue without a server; its metric is lost with the last one."""
        line = f"{server.role} {' '.join(cause.split())}"
        self._console.print(line, style="yellow", markup=False)
        process, server.process = server.process, None
        server.disconnect()
        if process is not None:
            self._supervisor.discard([process])
        if not self.of(server.metric):
            self.lost[server.metric] = line


def check_described(metric: str, about: Mapping[str, Any], dimensions: Sequence[str]) -> dict[str, str]:
    """Return the version of each dimension that the metric's agent has.

    Raises:
        RoleFailed: its answer does not have the form of `mora_environment.protocols.Metric`.
    """
    names, versions = about.get("dimensions"), about.get("versions")
    if not isinstance(names, list) or not isinstance(versions, list) or len(names) != len(versions):
        raise RoleFailed(f"{metric}: `describe` told no dimensions with a version each, got {sorted(about)}")
    found = {name: version for name, version in zip(names, versions, strict=True) if name in dimensions}
    if FEATURES in dimensions:
        found[FEATURES] = "; ".join(dict.fromkeys(map(str, versions)))  # features change when any score may
    return found
