"""The thread that feeds one server: takes batches, sends them, reports progress, forwards cancellations."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from mora_runtime.errors import DeadlineExceeded, MoraError, PeerDied, TransportError
from mora_runtime.process.role import Role
from mora_runtime.process.run_directory import RunDirectory

from mora_launch.config.capability import CAPABILITIES
from mora_launch.limits import CONTROL_DEADLINE_S, MAX_NUM_RUNS
from mora_launch.serving.counters import Counters
from mora_launch.serving.feeding.answers import check_samples, part_of
from mora_launch.serving.feeding.call_record import CallRecord
from mora_launch.serving.feeding.held_sample import HeldSample, rows_of
from mora_launch.serving.feeding.server_adapters import AdapterChange, ServerAdapters
from mora_launch.serving.work_queue import ServerStopped, Work, WorkQueue

if TYPE_CHECKING:
    from mora_runtime import Client, PendingReply, Session

log = logging.getLogger(__name__)
_DEPTH = 2  # batches sent to a server at once, so that it need not wait between them
_IDLE_S = 1.0  # interval of pings for the metrics, also to an idle server
_TICK_S = 0.05  # interval of checks for progress and cancellations
_WARM_NBYTES = 4 << 20
_VITALS = (
    "memory_nbytes", "arena_nbytes", "spilled_nbytes", "num_slots",
    "num_inline", "num_shared", "num_device", "num_staged",
    "inline_nbytes", "shared_nbytes", "device_nbytes", "staged_nbytes", "in_steps_ns", "after_steps_ns",
)  # fmt: skip


class _Batch:
    """The work of one call."""

    def __init__(
        self, works: list[Work], pending: PendingReply, change: AdapterChange | None, record: CallRecord
    ) -> None:
        self.works = works
        self.pending = pending
        self.change = change  # of adapters, before this call
        self.record = record
        self.told: set[int | None] = set()  # positions whose cancellation was sent to the server; None = all


class ServerWorker(threading.Thread):
    """Feeds the server of one role. It lives as long as the pool, over all generations of its server.

    Args:
        allowed: capabilities to use, if the agent has them.
        adapters: of the agent, and z.

    Attributes:
        is_connected: a live server has reported its capabilities.
        capabilities: capabilities of the connected server; empty without one.
        description: answer of the agent's method `describe`.
    """

    def __init__(
        self,
        role: Role,
        directory: RunDirectory,
        queue: WorkQueue,
        counters: Counters,
        *,
        allowed: Collection[str],
        adapters: ServerAdapters,
        arena_nbytes: int,
        deadline_s: float,
    ) -> None:
        super().__init__(name=f"feeds {role}", daemon=True)
        self.role = role
        self.agent = role.name
        self.capabilities: tuple[str, ...] = ()
        self.description: dict[str, Any] = {}
        self.vitals: dict[str, int] = {}
        self._directory = directory
        self._queue = queue
        self._counters = counters
        self._allowed = allowed
        self.adapters = adapters
        self._arena_nbytes = arena_nbytes
        self._deadline_s = deadline_s
        self._changed = threading.Condition()
        self._ready_generation = 0
        self._ended = False
        self._in_flight: deque[_Batch] = deque()
        self._answered_ns = 0  # when the server last answered a call
        self._remembered_s = 0.0  # when `vitals` were read
        self.is_connected = False

    def server_is_ready(self, generation: int) -> None:
        """Announce that the server's process of this generation accepts connections."""
        with self._changed:
            if generation > self._ready_generation:
                self._ready_generation = generation
                self._changed.notify_all()

    def leave(self, capabilities: Collection[str]) -> None:
        """Leave these capabilities to another agent."""
        with self._changed:
            self._allowed = frozenset(self._allowed).difference(capabilities)
            self.capabilities = tuple(name for name in self.capabilities if name in self._allowed)

    @property
    def num_in_flight(self) -> int:
        """Number of samples that were sent to the server and not answered yet."""
        return sum(len(batch.works) for batch in list(self._in_flight))

    def end(self) -> None:
        """Ask the thread to end, which takes at most about a second."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the server's capabilities are known; False if that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_connected or self._ended, timeout_s) and self.is_connected

    def run(self) -> None:
        """Feed one generation of the server after the other."""
        from mora_runtime import Session

        with Session.open(
            self._directory, f"front.{self.role}", arena_budget_nbytes=self._arena_nbytes,
            warm_nbytes=_WARM_NBYTES, spin_ns=0,
        ) as session:  # fmt: skip
            generation = 0
            while (generation := self._next_generation(generation)) > 0:
                if not self._feed(session):
                    generation -= 1  # the same server again, unless a newer one is ready
                    self._pause()

    def _feed(self, session: Session) -> bool:
        """Feed one generation of the server; False if it is left for another reason than its death or the end."""
        client: Client | None = None
        try:
            client = session.connect(self.role, deadline_s=CONTROL_DEADLINE_S)
            self._introduce(client)
            self._serve(client)
        except PeerDied as error:
            log.warning("%s: %s", self.role, error)
        except TransportError as error:
            log.warning("%s: %s; connecting again", self.role, error)
            return self._ended
        except Exception:
            # the boundary of the thread, which must outlive a fault of this code: others wait for its results
            log.exception("feeding %s failed; connecting again", self.role)
            return self._ended
        finally:
            self._lose_server()
            if client is not None:
                client.close()
        return True

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended, _IDLE_S)

    def _next_generation(self, last: int) -> int:
        """Wait for a server newer than the last; return its generation, or 0 at the end."""
        with self._changed:
            while not self._ended and self._ready_generation <= last:
                self._changed.wait(1.0)
            return 0 if self._ended else self._ready_generation

    def _introduce(self, client: Client) -> None:
        methods = client.welcome.agents.get(self.agent, [])
        is_served = "describe" in methods  # requests need an agent's defaults and limits
        described = client.call(self.agent, "describe", {}, deadline_s=self._deadline_s).values if is_served else {}
        self.adapters.connect(client, self._deadline_s)
        with self._changed:
            self.description = described
            self.capabilities = tuple(
                name for name in CAPABILITIES if is_served and name in methods and name in self._allowed
            )
            self.is_connected = True
            self._changed.notify_all()

    def _lose_server(self) -> None:
        self.capabilities = ()
        self.is_connected = False
        lost = [work for batch in self._in_flight for work in batch.works]
        self._in_flight.clear()
        again = []
        for work in lost:
            work.num_runs += 1
            if self._ended:
                work.fail(ServerStopped())
            elif work.num_runs < MAX_NUM_RUNS:
                again.append(work)
            else:
                work.fail(PeerDied(f"{self.role} died while it worked on this request, in {MAX_NUM_RUNS} attempts"))
        self._counters.num_runs_again.inc(len(again))
        self._queue.put_back(again)

    def _serve(self, client: Client) -> None:
        while not self._ended:
            self._fill(client, wait_s=_IDLE_S)
            if not self._in_flight:
                client.flush()  # pictures that another server has read
                # detects a death while idle
                self._remember(client.ping(CONTROL_DEADLINE_S)._asdict())
                continue
            # without a variable for the batch, which would keep its pictures while the server is idle
            if not self._in_flight[0].pending.has_ended:
                self._wait(client, self._in_flight[0])
            else:
                self._finish(client, self._in_flight[0])

    def _fill(self, client: Client, *, wait_s: float) -> None:
        """Send waiting work; if the server is idle, wait up to `wait_s` for some."""
        while len(self._in_flight) < _DEPTH:
            is_idle = not self._in_flight
            works = self._queue.take(self.capabilities, timeout_s=wait_s if is_idle else 0.0, only_full=not is_idle)
            if not works:
                return
            try:
                change = self.adapters.change_to(client, works[0].terms.lora, self._deadline_s)
                sending_ns = time.monotonic_ns()
                pending = self._submit(client, works)
            except PeerDied:
                self._queue.put_back(works)  # nothing was sent, so it does not count as a run
                raise
            except MoraError as error:
                for work in works:
                    work.fail(error)
                continue
            record = CallRecord(self._counters, self.agent, self.role, works, pending, sending_ns)
            self._in_flight.append(_Batch(works, pending, change, record))

    def _submit(self, client: Client, works: list[Work]) -> PendingReply:
        from mora_runtime.tensors.arrays import to_tensor

        arguments: dict[str, Any] = dict(works[0].shared)
        for name, value in works[0].sample.items():
            values = [work.sample[name] for work in works]
            if isinstance(value, HeldSample) and len(works) == 1 and value.role.name != self.agent:
                arguments[name] = value.row  # passed on, not copied
            elif isinstance(value, np.ndarray | HeldSample):
                arrays = [each.pixels() if isinstance(each, HeldSample) else each for each in values]
                arguments[name] = to_tensor(np.stack(arrays))
            else:
                arguments[name] = values
        if (z := self.adapters.modulation(works[0].terms.lora)) is not None:
            arguments["z"] = to_tensor(z)
        parts = any(work.on_part is not None for work in works)
        return client.submit(self.agent, works[0].capability, arguments, parts=parts, deadline_s=self._deadline_s)

    def _wait(self, client: Client, batch: _Batch) -> None:
        """Wait for a message or one tick, then report progress and forward cancellations."""
        from mora_runtime.rpc.client import wait_for_messages

        wait_for_messages([client], _TICK_S)
        for each in self._in_flight:
            self._hand_parts_over(each)
            self._pass_cancellations_on(client, each)
        is_asked = any(work.on_step for work in batch.works) or time.monotonic() - self._remembered_s > _IDLE_S
        if not batch.pending.has_ended and is_asked:
            pong = client.ping(CONTROL_DEADLINE_S)
            self._remember(pong._asdict())
            if pong.num_steps:
                for work in batch.works:
                    if work.on_step is not None:
                        work.on_step(pong.step, pong.num_steps)

    def _hand_parts_over(self, batch: _Batch) -> None:
        """Give frames that are made before the rest of their clip to those who take them."""
        for part in batch.pending.take_parts():
            try:
                sample, start, frames = part_of(part, len(batch.works), self._what(batch))
            except MoraError as error:
                log.warning("a part of a result is left out: %s", error)
                continue
            if (take := batch.works[sample].on_part) is not None:
                take(start, frames)

    def _remember(self, pong: Mapping[str, Any]) -> None:
        self.vitals = {name: pong[name] for name in _VITALS}
        self._remembered_s = time.monotonic()

    def _pass_cancellations_on(self, client: Client, batch: _Batch) -> None:
        indices = {index for index, work in enumerate(batch.works) if work.is_cancelled}
        new: set[int | None] = {None} if len(indices) == len(batch.works) else set(indices)
        for index in new - batch.told:
            client.cancel(batch.pending, CONTROL_DEADLINE_S, sample=index)
        batch.told |= new

    def _finish(self, client: Client, batch: _Batch) -> None:
        try:
            if batch.change is not None:
                batch.change.check()
            outputs = self._outputs(batch)
        except PeerDied:
            raise
        except MoraError as error:
            self._in_flight.popleft()
            self.adapters.doubt()
            self._record(batch, time.monotonic_ns(), error.code)
            if isinstance(error, DeadlineExceeded):  # the server would continue to compute a result that is not read
                client.cancel(batch.pending, CONTROL_DEADLINE_S)
            for work in batch.works:
                work.fail(error)
            return
        self._in_flight.popleft()
        answered_ns = time.monotonic_ns()
        self._fill(client, wait_s=0.0)  # before handling the results, so that the server keeps working
        self._record(batch, answered_ns)
        for work, output in zip(batch.works, outputs, strict=True):
            work.finish(output)
        client.flush()

    def _outputs(self, batch: _Batch) -> list[Any]:
        """Return the result of each sample: the front's own array, or the one in the server's memory."""
        from mora_runtime.tensors.arrays import to_pixels

        value = batch.pending.result().values.get("outputs")
        check_samples(value, batch.works[0].capability, len(batch.works), self._what(batch))
        if all(work.is_held for work in batch.works):
            rows = rows_of(value, len(batch.works))
            if rows is not None:
                return [HeldSample(row, self.role) for row in rows]
        return list(to_pixels(value, self._what(batch)))

    def _what(self, batch: _Batch) -> str:
        return f"{self.agent}.{batch.works[0].capability}"

    def _record(self, batch: _Batch, answered_ns: int, error: str | None = None) -> None:
        batch.record.ended(answered_ns, self._answered_ns, error)
        self._answered_ns = answered_ns
