"""The servers as their abilities: whoever asks names what it needs, not who does it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mora_runtime.errors import RoleFailed

from mora_launch.serving.counters import Counters
from mora_launch.serving.server_worker import ServerWorker
from mora_launch.serving.settings import ABILITIES
from mora_launch.serving.work_queue import Step, Work, WorkQueue


class ServerPool:
    """Submits work to whichever server has the ability.

    Args:
        workers: one for each server, not started yet.
        promised: abilities that the configuration says an agent has, by agent.
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
        """Start feeding; returns when every server has told its abilities.

        Raises:
            RoleFailed: one did not in time, or an agent lacks an ability that the configuration says it has.
        """
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            if not worker.wait_connected(deadline_s):
                raise RoleFailed(f"{worker.role} did not tell its abilities within {deadline_s:.0f} s; see its log")
            lacking = sorted(set(self._promised.get(worker.agent, ())) - set(worker.abilities))
            if lacking:
                raise RoleFailed(
                    f"serving.agents.{worker.agent}.abilities: its model has no {', '.join(lacking)}; "
                    f"of those named it has {', '.join(worker.abilities) or 'none'}"
                )
            for ability in worker.abilities:
                self._described[ability] = {**worker.description, "agent": worker.agent}

    @property
    def is_ready(self) -> bool:
        """True while every ability has a server."""
        present = {ability for worker in self.workers for ability in worker.abilities}
        return present >= set(self._described)

    def abilities(self) -> list[str]:
        """All that the servers can do."""
        return [ability for ability in ABILITIES if ability in self._described]

    def describe(self, ability: str) -> dict[str, Any]:
        """The agent behind an ability: `agent`, `model`, `height`, `width`, `num_frames`, ... RoleFailed if none."""
        if ability not in self._described:
            raise RoleFailed(f"no server can do {ability}; the configured ones can {', '.join(self.abilities())}")
        return self._described[ability]

    def submit(self, ability: str, sample: dict[str, Any], shared: dict[str, Any], on_step: Step | None = None) -> Work:
        """Queue one sample; see `Work`."""
        agent = self.describe(ability)["agent"]
        work = Work(ability, sample, shared, on_step)
        if agent in self._lost:
            work.fail(RoleFailed(f"the servers of {agent} have died too often and are not started again"))
        else:
            self.queue.put(work)
        return work

    def give_up(self, agent: str) -> None:
        """No server of this agent will come back."""
        self._lost.add(agent)
        abilities = [name for name, about in self._described.items() if about["agent"] == agent]
        self.queue.fail_all(abilities, RoleFailed(f"the servers of {agent} have died too often"))

    def close(self) -> None:
        """End all threads; work that is left fails."""
        for worker in self.workers:
            worker.end()
        for worker in self.workers:
            if worker.is_alive():
                worker.join(5.0)
        self.queue.fail_all(ABILITIES, RoleFailed("the servers are being stopped"))
