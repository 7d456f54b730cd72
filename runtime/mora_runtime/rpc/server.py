"""A server: one process that hosts agents of one environment and runs their methods one after the other.

The thread that runs agents reads the sockets itself, so a call needs no hand-over between threads. An error of a call
becomes its answer; nothing that a peer sends ends the loop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets
import select
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import psutil
import torch
import zmq

from mora_runtime.autograd.graph_table import GraphTable
from mora_runtime.device.device_pace import DevicePace
from mora_runtime.errors import AgentFailed, DeviceFailed, FrameError, MoraError, ProtocolError, TransportError
from mora_runtime.limits import DEVICE_TICK_S, DOORBELL_DEADLINE_S, MAX_NUM_PARTS
from mora_runtime.process import faults
from mora_runtime.process.logs import LogFields
from mora_runtime.process.supervisor_link import SupervisorLink, Vitals
from mora_runtime.rpc.activity import BAD_FRAMES_LOGGED, Activity, ControlThread, publish
from mora_runtime.rpc.agent import Agent, methods_of
from mora_runtime.rpc.execution import Caller, Executor
from mora_runtime.rpc.server_device import ServerDevice
from mora_runtime.rpc.server_settings import ServerSettings
from mora_runtime.rpc.session import Session
from mora_runtime.trace import tracing
from mora_runtime.wire.codec import decode, encode
from mora_runtime.wire.doorbell import Doorbell
from mora_runtime.wire.doorbell_listener import DoorbellListener
from mora_runtime.wire.messages import (
    PROTOCOL_VERSION,
    Backward,
    Call,
    Drop,
    Failure,
    Hello,
    Message,
    PoolOpened,
    Release,
    Welcome,
)
from mora_runtime.wire.sockets import authenticator, has_messages, server_socket

log = logging.getLogger(__name__)
_MAX_ERROR_LENGTH = 4000
_TICK_S = 1.0
_LAST_ANSWER_MS = 1000  # time for the last answers to leave when the server ends


class PeerConnection(Caller):
    """A greeted client."""

    def __init__(self, name: str, identity: bytes, token: str) -> None:
        super().__init__(name, identity)
        self.token = token
        self.greeted_s = time.monotonic()
        self.last_id = 0  # ids increase, so a call whose id is not larger has already run
        self.is_watched_for_room = False


class Server:
    """Serves calls on agents.

    Args:
        agents: by name.
    """

    def __init__(
        self, session: Session, settings: ServerSettings, agents: Mapping[str, Agent], link: SupervisorLink
    ) -> None:
        self._session = session
        self._settings = settings
        self._agents = agents
        self._link = link
        self._tickets = GraphTable(settings.activation_budget_nbytes)
        self._connections: dict[bytes, PeerConnection] = {}
        self._by_descriptor: dict[int, PeerConnection] = {}
        self._device = ServerDevice.of(settings)
        self._activity = Activity(
            memory_nbytes=memory_gauge(self._device.torch_device),
            keep_pace=DevicePace(self._device.torch_device).keep,
            ways=session.store.ways,
        )
        publish(self._activity)
        self._executor = Executor(
            session.store, agents, self._device, self._tickets, self._activity, recompute=settings.recompute
        )
        self._early: deque[tuple[PeerConnection, Message, bool]] = (
            deque()
        )  # messages taken in while a call waited for room
        self._num_bad_frames = 0
        self._num_parts = 0  # of the running call
        self._next_tick_s = 0.0
        self._idle_since_ns = 0
        run = session.run
        # first, because it refuses to start next to another server, whose traffic ZeroMQ would silently take over
        self._doorbell = DoorbellListener(str(run.socket(settings.role, "doorbell")))
        self._authenticator = authenticator(session.context, run)
        self._router, self._control = (
            server_socket(
                session.context, run, f"ipc://{run.socket(settings.role, kind)}",
                heartbeat_timeout_s=session.heartbeat_timeout_s,
            )
            for kind in ("calls", "control")
        )  # fmt: skip
        self._control_thread = ControlThread(self._control, self._activity)
        self._control_thread.start()
        self._router_descriptor = self._router.FD
        self._router_is_signalled = True
        self._poller = select.epoll()
        for source in (self._router_descriptor, self._doorbell, link):
            self._poller.register(source, select.EPOLLIN)
        session.store.arena.lenders = self

    def serve(self) -> None:
        """Run until a stop is requested.

        Raises:
            DeviceLost: no call can be computed any more; the call that found out is not answered.
        """
        torch.set_grad_enabled(False)  # of this thread, until a call asks for a graph
        while not self._link.stop_requested():
            while self._early:
                self._dispatch(*self._early.popleft())  # even if the peer has gone meanwhile; its answer is dropped
            for descriptor, events in self._wait():
                connection = self._by_descriptor.get(descriptor)
                if connection is not None:
                    self._take_from_doorbell(connection, events)
            if self._router_is_signalled:
                self._router_is_signalled = self._take_from_router()
            if time.monotonic() > self._next_tick_s:
                self._tend_doorbells()
                if self._session.store.plane is not None:
                    self._session.store.plane.leave_dead()
                self._next_tick_s = time.monotonic() + _TICK_S

    def _wait(self) -> list[tuple[int, int]]:
        """Wait for readable descriptors. If there are none, do late work first, then spin for a while, then sleep."""
        with tracing.span("wait for calls", "wait"):
            ready = self._poller.poll(0)
            if not ready and self._executor.finish_late():
                ready = self._poller.poll(0)
            is_device_busy = not ready and self._tend_device()
            spin = self._session.spin
            while not ready and time.monotonic_ns() < self._idle_since_ns + spin.ns:
                spin.give_way()
                ready = self._poller.poll(0)
            # ZeroMQ signals once for many messages, and any use of the socket may clear the signal
            if not ready and not self._router_is_signalled and not has_messages(self._router):
                ready = self._poller.poll(DEVICE_TICK_S if is_device_busy else _TICK_S)
        if ready and self._idle_since_ns:
            self._session.spin.waited(time.monotonic_ns() - self._idle_since_ns)
            self._idle_since_ns = 0
        readable = {descriptor for descriptor, _ in ready}
        self._router_is_signalled |= not readable or self._router_descriptor in readable
        if self._doorbell.fileno() in readable:
            self._tend_doorbells()
        return ready

    def _tend_device(self) -> bool:
        """Give back leases on device memory that has been read; True while there is more to wait for.

        Raises:
            DeviceLost: the device failed, and with it this process.
        """
        plane = self._session.store.plane
        if plane is None:
            return False
        try:
            plane.collect()
            is_busy = plane.is_busy
        except DeviceFailed as error:
            self._device.require_working(error)
            raise
        for connection in list(self._connections.values()):
            if connection.to_release and connection.doorbell is not None:
                released = connection.released()
                if not self._send_through_doorbell(connection, encode(Release(released))):
                    connection.to_release.extend(released)
        return is_busy

    def _take_from_router(self) -> bool:
        """Handle one message of one peer from ZeroMQ; False when there is none."""
        try:
            identity, *frames = self._router.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        message = self._decoded(identity, frames)
        connection = self._connections.get(identity)
        if message is None:
            return True
        if isinstance(message, Hello):
            self._greet(identity, message)
        elif connection is None:
            self._refuse_stranger(identity, message)
        else:
            if connection.doorbell is None:
                self._tend_doorbells()
            self._dispatch(connection, message, by_doorbell=False)
        return True

    def _decoded(self, identity: bytes, frames: list[bytes]) -> Message | None:
        try:
            if len(frames) != 1:
                raise FrameError(f"expected one frame, got {len(frames)}")
            return decode(frames[0])
        except FrameError as error:
            self._count_bad_frame(identity, error)
            if identity not in self._connections:  # most likely a peer of another version, which must be told
                self._send_over_zeromq(identity, encode(Failure(0, error.code, str(error), [])))
            return None

    def _take_from_doorbell(self, connection: PeerConnection, events: int) -> None:
        """Handle the messages of one peer's doorbell, and its end."""
        doorbell = connection.doorbell
        if doorbell is None:
            return
        if events & select.EPOLLOUT:
            self._flush(connection)
        self._read_doorbell(connection, self._dispatch)
        while doorbell.has_frames:  # already out of the socket, so the poller will not signal them again
            self._read_doorbell(connection, self._dispatch)
        if not doorbell.is_open:
            self._part(connection)

    def _read_doorbell(self, connection: PeerConnection, take: Callable[[PeerConnection, Message, bool], None]) -> bool:
        """Read the next message of a peer's doorbell and call `take` with it; False when there is none."""
        if connection.doorbell is None:
            return False
        faults.reach("before_receive")
        frame = connection.doorbell.read()
        self._session.store.receive_segments(connection)
        self._accept_pools(connection)
        if frame is None:
            return False
        try:
            message = decode(frame)
        except FrameError as error:
            self._count_bad_frame(connection.identity, error)
            return True
        take(connection, message, True)
        return True

    def _accept_pools(self, connection: PeerConnection) -> None:
        """Tell a client which of the device pools that it offered are open here."""
        for pool in connection.take_new_pools():
            if pool.opened is not None:
                self._send_through_doorbell(connection, encode(PoolOpened(*pool.key, self._session.identity)))

    def _count_bad_frame(self, identity: bytes, error: MoraError) -> None:
        self._num_bad_frames += 1
        if self._num_bad_frames <= BAD_FRAMES_LOGGED:
            log.warning("dropped a message of %r: %s: %s", identity[:40], type(error).__name__, error)

    def _refuse_stranger(self, identity: bytes, message: Message) -> None:
        error = ProtocolError(f"{type(message).__name__} before HELLO; connect again")
        self._count_bad_frame(identity, error)
        if isinstance(message, Call | Backward):
            self._send_over_zeromq(identity, encode(Failure(message.id, error.code, str(error), [])))

    def _greet(self, identity: bytes, hello: Hello) -> None:
        if hello.protocol != PROTOCOL_VERSION or not identity.startswith(f"{hello.name}#".encode()):
            text = (
                f"expected a HELLO of protocol version {PROTOCOL_VERSION} with the name of its socket, got version "
                f"{hello.protocol}; update the older side"
            )
            self._send_over_zeromq(identity, encode(Failure(0, ProtocolError.code, text, [])))
            return
        connection = PeerConnection(hello.name, identity, secrets.token_hex(16))
        known = self._connections.get(identity)
        if known is not None:
            self._part(known)
        self._connections[identity] = connection
        table = {name: sorted(methods_of(type(agent))) for name, agent in self._agents.items()}
        settings = self._settings
        name, token = self._session.identity, connection.token
        welcome = Welcome(PROTOCOL_VERSION, name, settings.environment, settings.lock_hash, table, token)
        self._send_over_zeromq(identity, encode(welcome))

    def _tend_doorbells(self) -> None:
        """Match new doorbells to their connections; drop peers that have not connected theirs in time."""
        by_token = {connection.token: connection for connection in self._connections.values()}
        for token, connected in self._doorbell.accept():
            connection = by_token.get(token)
            if connection is None or connection.doorbell is not None:
                connected.close()
                continue
            connection.doorbell = Doorbell(connected, connection.name)
            self._by_descriptor[connected.fileno()] = connection
            self._poller.register(connected.fileno(), select.EPOLLIN)
            try:
                self._session.store.offer_own_pool(connection)
            except TransportError as error:
                log.warning("%s is not offered the device pool: %s", connection.name, error)
        for connection in list(self._connections.values()):
            if connection.doorbell is None and time.monotonic() - connection.greeted_s > DOORBELL_DEADLINE_S:
                self._part(connection)

    def _part(self, connection: PeerConnection) -> None:
        """Drop a peer that has gone: free its tickets, leases and segments."""
        log.info("%s has gone; its tickets and leases are freed", connection.name)
        self._tickets.drop_all_of(connection.owner)
        if connection.doorbell is not None:
            self._poller.unregister(connection.doorbell.fileno())
            self._by_descriptor.pop(connection.doorbell.fileno(), None)
        self._session.store.forget(connection)
        connection.doorbell = None
        if self._connections.get(connection.identity) is connection:
            del self._connections[connection.identity]
        self._describe_activity()

    def _dispatch(self, connection: PeerConnection, message: Message, by_doorbell: bool) -> None:
        if isinstance(message, Call | Backward | Drop | Release):
            connection.take_back(message.released)
            if message.released:
                faults.reach("acked")
        if isinstance(message, Call | Backward):
            if message.id <= connection.last_id:
                log.warning("%s: call %d arrived twice and is not run again", connection.name, message.id)
                return
            connection.last_id = message.id
            faults.reach("after_receive")
            # the same name of the call as in the spans of its client
            args = None if tracing.active is None else {"call": f"{connection.owner}>{message.id}"}
            with tracing.span(_label(message), "protocol", args), LogFields(peer=connection.name, req=message.id):
                self._answer(connection, message, by_doorbell)
            return
        if isinstance(message, Drop):
            self._tickets.drop(connection.owner, message.tickets)
        elif isinstance(message, PoolOpened):
            self._session.store.add_reader(connection, message)
        elif not isinstance(message, Release):
            error = ProtocolError(f"a server does not accept {type(message).__name__}")
            self._count_bad_frame(connection.identity, error)
        self._describe_activity()

    def _answer(self, connection: PeerConnection, message: Call | Backward, by_doorbell: bool) -> None:
        """Run one call and send its one answer: a result or a failure."""
        if tracing.active is not None:
            tracing.active.flow(f"{connection.owner}>{message.id}", is_start=False, at_ns=time.monotonic_ns())
        if isinstance(message, Call) and message.parts:
            self._num_parts = 0
            self._activity.send_part = partial(self._send_part, connection, message.id, by_doorbell)
        frame = self._run(connection, message)
        self._activity.send_part = None
        self._activity.busy, self._activity.busy_call = "", None
        self._activity.ended(connection.identity, message.id)
        self._describe_activity()  # before the answer, because the client may ask for the state right after it
        self._reply(connection, message.id, frame, by_doorbell)
        faults.reach("header_sent")

    def _run(self, connection: PeerConnection, message: Call | Backward) -> bytes:
        """Run one call and return the frame of its answer."""
        try:
            return self._executor.run(connection, message)
        except MoraError as error:
            self._device.require_working(error)
            code, text = error.code, str(error)
        except (Exception, SystemExit) as error:
            # the boundary of the process: the caller gets type and message, the traceback stays in this server's log
            what = self._activity.busy or "before the agent was called"
            log.exception("%s failed", what)
            self._device.require_working(error)
            code, text = AgentFailed.code, f"{what}: {type(error).__name__}: {error}"
        # the call's leases end only here, after the error and everything in its traceback is gone;
        # its text may contain characters that UTF-8 cannot encode, such as those of a file name
        shown = text[:_MAX_ERROR_LENGTH].encode("utf-8", "backslashreplace").decode()
        with contextlib.suppress(DeviceFailed):  # `_tend_device` finds out whether the device is lost
            self._session.store.collect()
        return encode(Failure(message.id, code, shown, connection.released()))

    def _send_part(self, connection: PeerConnection, number: int, by_doorbell: bool, values: dict[str, Any]) -> None:
        """Answer a running call with a part of its result. A part that cannot be sent, or one too many, is left out."""
        self._num_parts += 1
        if self._num_parts > MAX_NUM_PARTS:
            return
        try:
            frame = self._executor.part(connection, number, values)
        except MoraError as error:
            log.warning("%s gets no part of the result of call %d: %s", connection.name, number, error)
            return
        if by_doorbell:
            self._send_through_doorbell(connection, frame)
        else:
            self._send_over_zeromq(connection.identity, frame)

    def _reply(self, connection: PeerConnection, number: int, frame: bytes, by_doorbell: bool) -> None:
        """Answer on the socket on which the call arrived."""
        if tracing.active is not None:
            tracing.active.flow(f"{connection.owner}<{number}", is_start=True, at_ns=time.monotonic_ns())
        if not by_doorbell:
            self._send_over_zeromq(connection.identity, frame)
        elif self._send_through_doorbell(connection, frame):
            self._idle_since_ns = time.monotonic_ns()

    def _send_through_doorbell(self, connection: PeerConnection, frame: bytes) -> bool:
        """Send a frame; False, and the peer is dropped, if it cannot take any."""
        if connection.doorbell is None:
            return False
        try:
            connection.doorbell.send_frame(frame)
        except TransportError as error:
            log.warning("%s cannot be answered (%s)", connection.name, error)
            self._part(connection)
            return False
        self._watch_for_room(connection)
        return True

    def _send_over_zeromq(self, identity: bytes, frame: bytes) -> None:
        try:
            self._router.send_multipart([identity, frame], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning("%r cannot be answered (%s)", identity[:40], error)

    def _flush(self, connection: PeerConnection) -> None:
        if connection.doorbell is None:
            return
        try:
            connection.doorbell.flush()
        except TransportError:
            return  # the peer has ended, which the next read detects
        self._watch_for_room(connection)

    def _watch_for_room(self, connection: PeerConnection) -> None:
        """Poll for room in a peer's socket as long as packets for it are queued."""
        doorbell = connection.doorbell
        if doorbell is not None and doorbell.has_unsent != connection.is_watched_for_room:
            connection.is_watched_for_room = doorbell.has_unsent
            self._poller.modify(doorbell.fileno(), select.EPOLLIN | (select.EPOLLOUT if doorbell.has_unsent else 0))

    def reclaim(self, timeout_s: float) -> bool:
        """Wait until a client may have released slots (for `Arena`); False when no client has a lease.

        Messages that arrive meanwhile are served after the current call.
        """
        if not any(connection.exports for connection in self._connections.values()):
            return False
        for descriptor, events in self._poller.poll(min(timeout_s, _TICK_S)):
            connection = self._by_descriptor.get(descriptor)
            if connection is None or connection.doorbell is None:
                continue
            if events & select.EPOLLOUT:
                self._flush(connection)
            while self._read_doorbell(connection, self._take_early):
                pass
            if not connection.doorbell.is_open:
                self._part(connection)
        return True

    def _take_early(self, connection: PeerConnection, message: Message, by_doorbell: bool) -> None:
        if isinstance(message, Call | Backward | Drop | Release):
            connection.take_back(message.released)
        self._early.append((connection, message, by_doorbell))

    def holders(self) -> str:
        """Describe the clients' leases (for `Arena`)."""
        return "; ".join(connection.holding() for connection in self._connections.values()) or "none"

    def _describe_activity(self) -> None:
        arena = self._session.store.arena
        self._activity.num_tickets = len(self._tickets)
        self._activity.activation_nbytes = self._tickets.nbytes
        self._activity.num_slots = arena.num_live
        self._activity.arena_nbytes = arena.allocated_nbytes
        self._activity.spilled_nbytes = arena.spilled_nbytes
        if tracing.active is not None:
            kept = {"tickets": self._activity.num_tickets, "nbytes": self._activity.activation_nbytes}
            tracing.active.count("activations", kept)

    def vitals(self) -> Vitals:
        """This server's state for its heartbeats; called by another thread."""
        pong = self._activity.pong(0)
        return {
            "busy": pong.busy,
            "busy_s": round(pong.busy_ns / 1e9, 3),
            "num_calls": pong.num_calls,
            "num_clients": len(self._connections),
            "num_tickets": pong.num_tickets,
            "num_leases": pong.num_slots,
            "arena_nbytes": pong.arena_nbytes,
            "num_bad_frames": self._num_bad_frames,
            **dataclasses.asdict(self._session.store.ways),
        }

    def close(self) -> None:
        """Close the agents, then the sockets."""
        for agent in self._agents.values():
            agent.close()
        self._control_thread.end(timeout_s=2.0)
        self._authenticator.stop()
        self._poller.close()
        self._router.close(linger=_LAST_ANSWER_MS)
        self._control.close(linger=0)
        self._doorbell.close()


def memory_gauge(device: torch.device) -> Callable[[], int]:
    """Build a function that returns the bytes allocated on the device; for the CPU the process's resident memory."""
    if device.type == "cuda":
        return lambda: torch.cuda.memory_allocated(device)
    process = psutil.Process()
    last = 0

    def resident() -> int:
        nonlocal last
        with contextlib.suppress(OSError):  # no descriptor is free to read /proc
            last = int(process.memory_info().rss)
        return last

    return resident


def _label(message: Call | Backward) -> str:
    return f"call {message.agent}.{message.method}" if isinstance(message, Call) else "call backward"
