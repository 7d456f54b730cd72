"""The state of a server, and the thread that answers PING and CANCEL with it while an agent computes."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from mora_runtime.errors import Cancelled, FrameError
from mora_runtime.limits import MAX_NUM_CANCELLED
from mora_runtime.tensors.ways import Ways
from mora_runtime.wire.codec import decode, encode
from mora_runtime.wire.messages import Cancel, Ping, Pong

log = logging.getLogger(__name__)
_POLL_MS = 200
BAD_FRAMES_LOGGED = 20


@dataclass
class Activity:
    """A server's state. The thread that serves calls writes it, the control thread reads it; no lock is needed."""

    busy: str = ""
    busy_call: tuple[bytes, int] | None = None  # caller's identity and id of the running call
    busy_since_ns: int = 0
    num_calls: int = 0
    num_tickets: int = 0
    activation_nbytes: int = 0
    num_slots: int = 0
    arena_nbytes: int = 0
    spilled_nbytes: int = 0
    step: int = 0
    num_steps: int = 0
    reported_ns: int = 0  # when the running call last reported a step; 0 = never
    in_steps_ns: int = 0
    after_steps_ns: int = 0
    memory_nbytes: Callable[[], int] = lambda: 0
    keep_pace: Callable[[], None] = lambda: None  # waits for the device before a step is reported
    send_part: Callable[[dict[str, Any]], None] | None = None  # to the caller of the running call, if it wants parts
    ways: Ways = field(default_factory=Ways)
    # (caller, id, sample or None for all); the control thread adds entries, the thread that serves calls removes them
    cancelled: dict[tuple[bytes, int, int | None], None] = field(default_factory=dict)

    def pong(self, number: int) -> Pong:
        """The current state as an answer to a PING."""
        busy_ns = time.monotonic_ns() - self.busy_since_ns if self.busy else 0
        return Pong(
            number, self.busy, busy_ns, self.num_calls, self.num_tickets, self.activation_nbytes, self.num_slots,
            self.arena_nbytes, self.spilled_nbytes, self.step, self.num_steps, self.memory_nbytes(),
            **dataclasses.asdict(self.ways), in_steps_ns=self.in_steps_ns, after_steps_ns=self.after_steps_ns,
        )  # fmt: skip

    def report(self, step: int, num_steps: int) -> None:
        """Set the progress. Time before a new step belongs to the steps; time before the same step again, from the
        first on, is the decoding that follows it."""
        now_ns = time.monotonic_ns()
        spent_ns = now_ns - (self.reported_ns or self.busy_since_ns)
        if step == self.step > 0:
            self.after_steps_ns += spent_ns
        else:
            self.in_steps_ns += spent_ns
        self.step, self.num_steps, self.reported_ns = step, num_steps, now_ns

    def cancel(self, identity: bytes, call: int, sample: int | None) -> None:
        """Store a CANCEL, even of a call that has not begun; above 1,024 the oldest are dropped."""
        self.cancelled[identity, call, sample] = None
        while len(self.cancelled) > MAX_NUM_CANCELLED:
            self.cancelled.pop(next(iter(self.cancelled)), None)

    def ended(self, identity: bytes, call: int) -> None:
        """Reset the progress, and drop CANCELs of this caller up to this call."""
        if self.reported_ns:
            self.after_steps_ns += time.monotonic_ns() - self.reported_ns
        self.step = self.num_steps = self.reported_ns = 0
        for entry in list(self.cancelled):
            if entry[0] == identity and entry[1] <= call:
                self.cancelled.pop(entry, None)


_activity: Activity | None = None


def publish(activity: Activity) -> None:
    """Make a server's activity the one that `check_cancelled` reads."""
    global _activity
    _activity = activity


def check_cancelled() -> None:
    """Raise Cancelled if the caller has cancelled the running call. Agents call it between denoising steps."""
    activity = _activity
    if activity is not None and activity.busy_call is not None and (*activity.busy_call, None) in activity.cancelled:
        raise Cancelled("the caller cancelled this call")


def cancelled_samples() -> frozenset[int]:
    """Indices of the samples in the running call's batch that were cancelled; the other samples continue."""
    activity = _activity
    if activity is None or activity.busy_call is None or not activity.cancelled:
        return frozenset()
    call = activity.busy_call
    entries = list(activity.cancelled)
    return frozenset(sample for *which, sample in entries if tuple(which) == call and sample is not None)


def report_step(step: int, num_steps: int) -> None:
    """Report progress for PONG, and raise Cancelled as `check_cancelled`. Agents call it after each denoising step."""
    activity = _activity
    if activity is not None:
        activity.keep_pace()
        activity.report(step, num_steps)
    check_cancelled()


def report_part(**values: Any) -> None:
    """Send values that the running call has already made to its caller, if the caller asked for parts.

    Agents call it between steps that take long, from the thread that runs the call. The whole result follows as usual.
    """
    activity = _activity
    if activity is not None and activity.send_part is not None:
        activity.send_part(values)


class ControlThread(threading.Thread):
    """Answers PING and CANCEL on a server's control socket."""

    def __init__(self, control: zmq.Socket[bytes], activity: Activity) -> None:
        super().__init__(name="control", daemon=True)
        self._control = control
        self._activity = activity
        self._ended = threading.Event()
        self._num_bad_frames = 0

    def run(self) -> None:
        """Serve until `end` is called."""
        while not self._ended.is_set():
            if self._control.poll(_POLL_MS):
                self._serve_one()

    def _serve_one(self) -> None:
        parts = self._control.recv_multipart()
        try:
            question = decode(parts[-1]) if len(parts) == 2 else None
        except FrameError as error:
            self._num_bad_frames += 1
            if self._num_bad_frames <= BAD_FRAMES_LOGGED:
                log.warning("control socket: %s", error)
            return
        if isinstance(question, Cancel):
            self._activity.cancel(parts[0], question.call, question.sample)
        if isinstance(question, Ping | Cancel):
            try:
                self._control.send_multipart([parts[0], encode(self._activity.pong(question.id))], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                log.warning("control socket: cannot answer a peer that has gone: %s", error)

    def end(self, timeout_s: float) -> None:
        """Stop the thread and wait for it."""
        self._ended.set()
        self.join(timeout_s)
