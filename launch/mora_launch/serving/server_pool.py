"""The servers as their capabilities: whoever asks names what it needs, not who does it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mora_runtime.errors import RoleFailed

from mora_launch.serving.counters import Counters
from mora_launch.serving.server_worker import ServerWorker
from mora_launch.serving.settings import CAPABILITIES
from mora_launch.serving.work_queue import Step, Work, WorkQueue


class ServerPool:
    """Submits work to whichever server has the capability.

    Args:
        workers: one for each server, not started yet.
        promised: capabilities that the configuration says an agent has, by agent.
    """

    def __init__(
        self,
        workers: Sequence[ServerWorker],
        queue: WorkQueue,
        counters: Counters,
        promised: Mapping[str, Collection[str]],
    ) -> None:
        self.workers = list(workers)
        self._promised = promised
        self.queue = queue
        self.counters = counters
        self._described: dict[str, dict[str, Any]] = {}
        self._lost: set[str] = set()

    def start(self, deadline_s: float) -> None:
        """Start feeding; returns when every server has told its capabilities.

        Raises:
            RoleFailed: one did not in time, or an agent lacks a capability that the configuration says it has.
        """
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            if not worker.wait_connected(deadline_s):
                raise RoleFailed(f"{worker.role} did not tell its capabilities within {deadline_s:.0f} s; see its log")
            lacking = sorted(set(self._promised.get(worker.agent, ())) - set(worker.capabilities))
            if lacking:
                raise RoleFailed(
                    f"serving.agents.{worker.agent}.capabilities: its model has no {', '.join(lacking)}; "
                    f"of those named it has {', '.join(worker.capabilities) or 'none'}"
                )
            for capability in worker.capabilities:
                self._described[capability] = {**worker.description, "agent": worker.agent}

    @property
    def is_ready(self) -> bool:
        """True while every capability has a server."""
        present = {capability for worker in self.workers for capability in worker.capabilities}
        return present >= set(self._described)

    def capabilities(self) -> list[str]:
        """All that the servers can do."""
        return [capability for capability in CAPABILITIES if capability in self._described]

    def describe(self, capability: str) -> dict[str, Any]:
        """The agent behind a capability: `agent`, `model`, `height`, `width`, `num_frames`, ... RoleFailed if none."""
        if capability not in self._described:
            raise RoleFailed(f"no server can do {capability}; the configured ones can {', '.join(self.capabilities())}")
        return self._described[capability]

    def submit(
        self, capability: str, sample: dict[str, Any], shared: dict[str, Any], on_step: Step | None = None
    ) -> Work:
        """Queue one sample; see `Work`."""
        agent = self.describe(capability)["agent"]
        work = Work(capability, sample, shared, on_step)
        if agent in self._lost:
            work.fail(RoleFailed(f"the servers of {agent} have died too often and are not started again"))
        else:
            self.queue.put(work)
        return work

    def give_up(self, agent: str) -> None:
        """No server of this agent will come back."""
        self._lost.add(agent)
        capabilities = [name for name, about in self._described.items() if about["agent"] == agent]
        self.queue.fail_all(capabilities, RoleFailed(f"the servers of {agent} have died too often"))

    def close(self) -> None:
        """End all threads; work that is left fails."""
        for worker in self.workers:
            worker.end()
        for worker in self.workers:
            if worker.is_alive():
                worker.join(5.0)
        self.queue.fail_all(CAPABILITIES, RoleFailed("the servers are being stopped"))
