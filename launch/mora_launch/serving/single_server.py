"""One server process that answers calls of this process, outside of a job: a judge, a captioner, a text encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mora_runtime.errors import DeadlineExceeded, RoleFailed
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.process.supervisor import Supervisor

from mora_launch.config.agent_config import AgentConfig
from mora_launch.environments.agent_options import check_options
from mora_launch.environments.build import ensure_environments
from mora_launch.environments.catalog import Environments, find_environment
from mora_launch.jobs.servers import server_settings, start_server
from mora_launch.limits import CONTROL_DEADLINE_S
from mora_launch.weights.missing import refuse_missing

if TYPE_CHECKING:
    from mora_runtime import Client

_TICK_S = 0.2  # interval of checks for the server's death and Ctrl-C while it answers


class SingleServer:
    """A server of one agent.

    Args:
        name: name of its role in the run.
        shown: how messages call it.
        environments: those of the configuration, by name.
        key: of the configuration that names the environment.

    Raises:
        MoraError: its environment does not exist or refuses the options, or the model is not on this machine.
    """

    def __init__(
        self, name: str, agent: AgentConfig, environments: Environments, *, shown: str, key: str,
        start_deadline_s: float,
    ) -> None:  # fmt: skip
        self._name = name
        self._shown = shown
        self._agent = agent
        self._start_deadline_s = start_deadline_s
        self._environment = find_environment(environments, agent.environment, key)
        ensure_environments([self._environment])
        checked = check_options(name, agent, self._environment)
        refuse_missing([checked])
        self._options = checked.options
        self._connected: tuple[Client, Supervisor] | None = None

    @contextlib.contextmanager
    def session(self, directory: RunDirectory, client: str) -> Iterator[None]:
        """Start and connect the server; it ends with the context and so frees its memory.

        Args:
            client: name of this process in the run.

        Raises:
            KeyboardInterrupt: the user asked to stop while the model was loading.
            MoraError: the model cannot be loaded.
        """
        from mora_runtime import Session

        settings = server_settings(directory, self._name, self._agent, self._environment, self._options, warm_nbytes=0)
        with Supervisor(lambda _: None) as supervisor:
            child = start_server(supervisor, directory, settings, self._environment)
            if not supervisor.wait_ready([child], deadline_s=self._start_deadline_s):
                raise KeyboardInterrupt
            with Session.open(directory, client, warm_nbytes=0) as session:
                connected = session.connect(
                    settings.role, deadline_s=CONTROL_DEADLINE_S, expected_lock_hash=settings.lock_hash
                )
                self._connected = connected, supervisor
                try:
                    yield
                finally:
                    self._connected = None

    def call(self, method: str, arguments: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Call the agent and return the values of its answer.

        Raises:
            KeyboardInterrupt: the user asked to stop.
            RoleFailed: the server has ended.
            MoraError: the agent's error, or DeadlineExceeded.
        """
        from mora_runtime.rpc.client import wait_for_messages

        assert self._connected is not None, "call is used inside a session"
        client, supervisor = self._connected
        pending = client.submit(self._name, method, arguments, deadline_s=timeout_s)
        while not pending.has_ended:
            wait_for_messages([client], _TICK_S)
            if supervisor.look(timeout_s=0.0):
                raise RoleFailed(f"{self._shown}: its server ended during a question; see logs/{self._name}.0.*")
            if supervisor.num_interrupts:
                raise KeyboardInterrupt
        try:
            return pending.result().values
        except DeadlineExceeded:
            client.cancel(pending, CONTROL_DEADLINE_S)  # so that the next question need not wait for this one
            raise
