"""The servers by capability: callers name the capability that they need, not a server."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from mora_runtime.errors import Cancelled, RoleFailed

from mora_launch.checkpoints.adapter_catalog import AdapterCatalog
from mora_launch.config.capability import CAPABILITIES
from mora_launch.serving.adapter_choices import AdapterChoices
from mora_launch.serving.cost import call_cost
from mora_launch.serving.counters import Counters
from mora_launch.serving.feeding.server_worker import ServerWorker
from mora_launch.serving.terms import DEFAULT_TERMS, Terms
from mora_launch.serving.work_queue import ServerStopped, Step, TakePart, Work, WorkQueue


class ServerPool:
    """Submits work to the servers that have a capability.

    Args:
        workers: one per server, not yet started, in the order of the agents.
        promised: capabilities of each agent according to the configuration.
        adapters: that the servers were told to load.
    """

    def __init__(
        self,
        workers: Sequence[ServerWorker],
        queue: WorkQueue,
        counters: Counters,
        promised: Mapping[str, Collection[str]],
        adapters: AdapterCatalog,
    ) -> None:
        self.workers = list(workers)
        self._promised = promised
        self.queue = queue
        self.counters = counters
        self.adapters = AdapterChoices(adapters)
        self._described: dict[str, dict[str, Any]] = {}
        self._lost: set[str] = set()

    def start(self, deadline_s: float) -> None:
        """Start the workers and wait until every server has reported its capabilities.

        Raises:
            RoleFailed: a server did not report in time, or lacks a capability that the configuration names; or adapters
                fit no agent.
        """
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            if not worker.wait_connected(deadline_s):
                raise RoleFailed(f"{worker.role} did not report its capabilities in {deadline_s:.0f} s; see its log")
            lacking = sorted(set(self._promised.get(worker.agent, ())) - set(worker.capabilities))
            if lacking:
                raise RoleFailed(
                    f"{worker.agent}: its `capabilities` name {', '.join(lacking)}, which its model does not have; "
                    f"of the named ones it has {', '.join(worker.capabilities) or 'none'}"
                )
            others = {name for name, about in self._described.items() if about["agent"] != worker.agent}
            worker.leave(others)  # only one agent may have it, so that the same seed gives the same bytes
            for capability in worker.capabilities:
                self._described[capability] = {**worker.description, "agent": worker.agent}
            self.adapters.learn(worker.agent, worker.adapters.names, worker.adapters.unfit)
        self.adapters.check_used()
        self.counters.start_at_zero(self.capabilities())

    @property
    def is_ready(self) -> bool:
        """True while every capability has a connected server."""
        present = {capability for worker in self.workers for capability in worker.capabilities}
        return present >= set(self._described)

    def capabilities(self) -> list[str]:
        """Return all capabilities of the servers."""
        return [capability for capability in CAPABILITIES if capability in self._described]

    def agents_of(self, capabilities: Collection[str] = ()) -> set[str]:
        """Return the agents that have some of these capabilities; all agents without an argument."""
        return {about["agent"] for name, about in self._described.items() if name in capabilities or not capabilities}

    def describe(self, capability: str) -> dict[str, Any]:
        """Describe a capability's agent: `agent`, `model`, `height`, `width`, `num_frames`... Raises: RoleFailed."""
        if capability not in self._described:
            known = ", ".join(self.capabilities())
            raise RoleFailed(f"no server has the capability {capability}; the configured servers have {known}")
        return self._described[capability]

    def submit(
        self,
        capability: str,
        sample: dict[str, Any],
        shared: dict[str, Any],
        on_step: Step | None = None,
        terms: Terms = DEFAULT_TERMS,
        *,
        is_held: bool = False,
        on_part: TakePart | None = None,
    ) -> Work:
        """Queue one sample; see `Work`. An agent that has no adapters of the name in the terms works without them."""
        about = self.describe(capability)
        agent = about["agent"]
        own = terms.model_copy(update={"lora": self.adapters.chosen(terms.lora, agent)})
        cost = call_cost(capability, about, shared)
        work = Work(
            capability, sample, shared, on_step, terms=own, lane=agent, cost=cost, is_held=is_held, on_part=on_part
        )  # fmt: skip
        work.future.add_done_callback(lambda done: self._count_cancelled(capability, done))
        if agent in self._lost:
            work.fail(RoleFailed(f"the servers of {agent} have died too often and are not restarted"))
        else:
            self.queue.put(work)
        return work

    def _count_cancelled(self, capability: str, done: Future[Any]) -> None:
        if done.cancelled() or isinstance(done.exception(), Cancelled):
            self.counters.num_cancelled.labels(capability).inc()

    def give_up(self, agent: str) -> None:
        """Fail all work of an agent whose servers are not restarted."""
        self._lost.add(agent)
        capabilities = [name for name, about in self._described.items() if about["agent"] == agent]
        self.queue.fail_all(capabilities, RoleFailed(f"the servers of {agent} have died too often"))

    def close(self) -> None:
        """End all threads; the remaining work fails."""
        for worker in self.workers:
            worker.end()
        for worker in self.workers:
            if worker.is_alive():
                worker.join(5.0)
        self.queue.fail_all(CAPABILITIES, ServerStopped())
