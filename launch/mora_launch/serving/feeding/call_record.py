"""What is recorded about one call of a server: the wait of its samples, its time, and their spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mora_launch.serving.counters import Counters
from mora_launch.serving.work_queue import Work
from mora_launch.telemetry import spans

if TYPE_CHECKING:
    from mora_runtime import PendingReply


class CallRecord:
    """One call, from sending it to its answer.

    Args:
        works: its samples, which may belong to different requests.
        sent_ns: time just before it was sent, on CLOCK_MONOTONIC.
    """

    def __init__(
        self, counters: Counters, agent: str, role: str, works: Sequence[Work], pending: PendingReply, sent_ns: int
    ) -> None:
        self._counters = counters
        self._agent = agent
        self._role = role
        self._works = works
        self._pending = pending
        self._sent_ns = sent_ns
        self._capability = works[0].capability
        counters.batch_size.labels(self._capability).observe(len(works))

    def ended(self, answered_ns: int, free_ns: int, error: str | None = None) -> None:
        """Record the answer.

        Args:
            answered_ns: when it came, on CLOCK_MONOTONIC.
            free_ns: when the call before was answered; until then the server worked on that one.
            error: code of the error that it is.
        """
        begun_ns = max(self._sent_ns, free_ns)
        waited = self._counters.queue_s.labels(self._capability, self._agent)
        for work in self._works:
            waited.observe((begun_ns - work.created_ns) / 1e9)
        if error is None:
            self._counters.call_s.labels(self._capability).observe((answered_ns - self._sent_ns) / 1e9)
            self._counters.stage_s.labels(self._capability, self._agent).observe((answered_ns - begun_ns) / 1e9)
        if spans.active is not None:
            self._add_spans(begun_ns, answered_ns, error)

    def _add_spans(self, begun_ns: int, answered_ns: int, error: str | None) -> None:
        common = {"mora.agent": self._agent, "mora.capability": self._capability}
        call: spans.Attributes = {
            **common, "mora.server": self._role, "mora.batch_size": len(self._works),
            "mora.call": f"{self._pending.client.identity}>{self._pending.id}",  # as in the server's trace and log
        }  # fmt: skip
        for work in self._works:
            spans.past("wait in queue", work.span, work.created_ns, begun_ns, common)
            spans.past(f"call {self._capability}", work.span, begun_ns, answered_ns, call, error)
