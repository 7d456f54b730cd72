"""What a server is doing, told by a thread that does nothing else: heartbeats are answered while an agent computes."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

import zmq

from mora_runtime.errors import Cancelled, FrameError
from mora_runtime.frames import decode, encode
from mora_runtime.messages import Cancel, Ping, Pong

log = logging.getLogger(__name__)
_POLL_MS = 200
BAD_FRAMES_LOGGED = 20


@dataclass
class Activity:
    """Written by the thread that serves calls, read by the control thread; each field is written whole."""

    busy: str = ""
    busy_call: tuple[bytes, int] | None = None  # who called, and the id
    busy_since_ns: int = 0
    num_calls: int = 0
    num_tickets: int = 0
    activation_nbytes: int = 0
    num_slots: int = 0
    arena_nbytes: int = 0
    spilled_nbytes: int = 0
    cancelled_call: tuple[bytes, int] | None = None

    def pong(self, number: int) -> Pong:
        """The present state as an answer to a PING."""
        busy_ns = time.monotonic_ns() - self.busy_since_ns if self.busy else 0
        return Pong(
            number, self.busy, busy_ns, self.num_calls, self.num_tickets, self.activation_nbytes, self.num_slots,
            self.arena_nbytes, self.spilled_nbytes,
        )  # fmt: skip


_activity: Activity | None = None


def publish(activity: Activity) -> None:
    """Make a server's activity the one that `check_cancelled` asks."""
    global _activity
    _activity = activity


def check_cancelled() -> None:
    """Called by agents between denoising steps; raises Cancelled when the caller has given the running call up."""
    activity = _activity
    if activity is not None and activity.busy_call is not None and activity.cancelled_call == activity.busy_call:
        raise Cancelled("the caller cancelled this call")


class ControlThread(threading.Thread):
    """Answers PING and takes CANCEL on a server's control socket."""

    def __init__(self, control: zmq.Socket[bytes], activity: Activity) -> None:
        super().__init__(name="control", daemon=True)
        self._control = control
        self._activity = activity
        self._ended = threading.Event()
        self._num_bad_frames = 0

    def run(self) -> None:
        """Serve until `end`."""
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
            self._activity.cancelled_call = (parts[0], question.call)
        if isinstance(question, Ping | Cancel):
            try:
                self._control.send_multipart([parts[0], encode(self._activity.pong(question.id))], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                log.warning("control socket: answer to a peer that is gone: %s", error)

    def end(self, timeout_s: float) -> None:
        """Stop and wait."""
        self._ended.set()
        self.join(timeout_s)
