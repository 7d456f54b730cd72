"""A server: one process that hosts agents of one environment and runs their methods one after the other.

The thread that runs agents reads the sockets itself, so a call costs no hand-over between threads. Errors of any call
become one answer; nothing a peer sends ends the loop.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import select
import time
from collections import deque
from collections.abc import Callable, Mapping

import psutil
import torch
import zmq

from mora_runtime.autograd.graph_table import TicketTable
from mora_runtime.errors import AgentFailed, FrameError, MoraError, ProtocolError, TransportError
from mora_runtime.limits import SIDE_DEADLINE_S
from mora_runtime.process import faults
from mora_runtime.process.logs import LogFields
from mora_runtime.process.supervisor_link import SupervisorLink, Vitals
from mora_runtime.rpc.activity import BAD_FRAMES_LOGGED, Activity, ControlThread, publish
from mora_runtime.rpc.agent import Agent, methods_of
from mora_runtime.rpc.execution import Caller, Executor
from mora_runtime.rpc.server_settings import ServerSettings
from mora_runtime.rpc.session import Node
from mora_runtime.trace import tracing
from mora_runtime.wire.codec import decode, encode
from mora_runtime.wire.doorbell import SideChannel
from mora_runtime.wire.doorbell_listener import SideListener
from mora_runtime.wire.messages import (
    PROTOCOL_VERSION,
    Backward,
    Call,
    Drop,
    Failure,
    Hello,
    Message,
    Release,
    Welcome,
)
from mora_runtime.wire.sockets import authenticator, has_messages, server_socket

log = logging.getLogger(__name__)
_MAX_ERROR_LENGTH = 4000
_TICK_S = 1.0
_LAST_ANSWER_MS = 1000  # that an answer may still take on its way when the server ends


class Connection(Caller):
    """A greeted client."""

    def __init__(self, name: str, identity: bytes, token: str) -> None:
        super().__init__(name, identity)
        self.token = token
        self.greeted_s = time.monotonic()
        self.last_id = 0  # ids increase, so an id that is not larger has been run already
        self.is_watched_for_room = False


class Server:
    """Serves calls on agents.

    Args:
        agents: by name.
    """

    def __init__(self, node: Node, settings: ServerSettings, agents: Mapping[str, Agent], link: SupervisorLink) -> None:
        self._node = node
        self._settings = settings
        self._agents = agents
        self._link = link
        self._tickets = TicketTable(settings.activation_budget_nbytes)
        self._connections: dict[bytes, Connection] = {}
        self._by_descriptor: dict[int, Connection] = {}
        device = torch.device(settings.device)
        self._activity = Activity(memory_nbytes=memory_gauge(device))
        publish(self._activity)
        self._executor = Executor(
            node.plane, agents, device, self._tickets, self._activity, recompute=settings.recompute
        )
        self._early: deque[tuple[Connection, Message, bool]] = deque()  # messages taken in while a call waited for room
        self._num_bad_frames = 0
        self._next_tick_s = 0.0
        self._idle_since_ns = 0
        run = node.run
        # first, because it refuses where another server listens, while ZeroMQ would silently take its traffic over
        self._side = SideListener(str(run.socket(settings.role, "side")))
        self._authenticator = authenticator(node.context, run)
        self._router = server_socket(node.context, run, f"ipc://{run.socket(settings.role, 'calls')}")
        self._control = server_socket(node.context, run, f"ipc://{run.socket(settings.role, 'control')}")
        self._control_thread = ControlThread(self._control, self._activity)
        self._control_thread.start()
        self._router_descriptor = self._router.FD
        self._router_is_signalled = True
        self._poller = select.epoll()
        for source in (self._router_descriptor, self._side, link):
            self._poller.register(source, select.EPOLLIN)
        node.plane.arena.lenders = self

    def serve(self) -> None:
        """Run until a stop is requested."""
        torch.set_grad_enabled(False)  # of this thread, until a call asks for a graph
        while not self._link.stop_requested():
            while self._early:
                self._dispatch(*self._early.popleft())  # of a peer that has left meanwhile: nobody reads the answer
            for descriptor, events in self._wait():
                connection = self._by_descriptor.get(descriptor)
                if connection is not None:
                    self._take_from_side(connection, events)
            if self._router_is_signalled:
                self._router_is_signalled = self._take_from_router()
            if time.monotonic() > self._next_tick_s:
                self._tend_side_sockets()
                self._next_tick_s = time.monotonic() + _TICK_S

    def _wait(self) -> list[tuple[int, int]]:
        """What has become readable. Does late work where that is nothing, then looks for a while before it sleeps."""
        with tracing.span("wait for calls", "wait"):
            ready = self._poller.poll(0)
            if not ready and self._executor.finish_late():
                ready = self._poller.poll(0)
            spin = self._node.spin
            while not ready and time.monotonic_ns() < self._idle_since_ns + spin.ns:
                spin.give_way()
                ready = self._poller.poll(0)
            # ZeroMQ signals once for many messages, and any use of the socket may take the signal away
            if not ready and not self._router_is_signalled and not has_messages(self._router):
                ready = self._poller.poll(_TICK_S)
        if ready and self._idle_since_ns:
            self._node.spin.waited(time.monotonic_ns() - self._idle_since_ns)
            self._idle_since_ns = 0
        readable = {descriptor for descriptor, _ in ready}
        self._router_is_signalled |= not readable or self._router_descriptor in readable
        if self._side.fileno() in readable:
            self._tend_side_sockets()
        return ready

    def _take_from_router(self) -> bool:
        """One message of one peer over ZeroMQ; False when there is none."""
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
            if connection.side is None:
                self._tend_side_sockets()
            self._dispatch(connection, message, by_side=False)
        return True

    def _decoded(self, identity: bytes, frames: list[bytes]) -> Message | None:
        try:
            if len(frames) != 1:
                raise FrameError(f"expected one frame, got {len(frames)}")
            return decode(frames[0])
        except FrameError as error:
            self._count_bad_frame(identity, error)
            if identity not in self._connections:  # most likely a peer of another version, which should learn it now
                self._send_over_zeromq(identity, encode(Failure(0, error.code, str(error), [])))
            return None

    def _take_from_side(self, connection: Connection, events: int) -> None:
        """One message of one peer through its doorbell; its end."""
        side = connection.side
        if side is None:
            return
        if events & select.EPOLLOUT:
            self._flush(connection)
        self._read_side(connection, self._dispatch)
        while side.has_frames:  # read already, so the kernel will not tell of them again
            self._read_side(connection, self._dispatch)
        if not side.is_open:
            self._part(connection)

    def _read_side(self, connection: Connection, take: Callable[[Connection, Message, bool], None]) -> bool:
        """Give the next message that a peer has sent through its doorbell to `take`; False when there is none."""
        if connection.side is None:
            return False
        faults.reach("before_receive")
        frame = connection.side.read()
        self._node.plane.receive_segments(connection)
        if frame is None:
            return False
        try:
            message = decode(frame)
        except FrameError as error:
            self._count_bad_frame(connection.identity, error)
            return True
        take(connection, message, True)
        return True

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
                f"expected a HELLO of protocol version {PROTOCOL_VERSION} with the name of its own socket, got version "
                f"{hello.protocol}; update the older side"
            )
            self._send_over_zeromq(identity, encode(Failure(0, ProtocolError.code, text, [])))
            return
        connection = Connection(hello.name, identity, secrets.token_hex(16))
        known = self._connections.get(identity)
        if known is not None:
            self._part(known)
        self._connections[identity] = connection
        table = {name: sorted(methods_of(type(agent))) for name, agent in self._agents.items()}
        settings = self._settings
        name, token = self._node.identity, connection.token
        welcome = Welcome(PROTOCOL_VERSION, name, settings.environment, settings.lock_hash, table, token)
        self._send_over_zeromq(identity, encode(welcome))

    def _tend_side_sockets(self) -> None:
        """Match new side sockets to their connections; forget peers that died before they had one."""
        by_token = {connection.token: connection for connection in self._connections.values()}
        for token, connected in self._side.accept():
            connection = by_token.get(token)
            if connection is None or connection.side is not None:
                connected.close()
                continue
            connection.side = SideChannel(connected, connection.name)
            self._by_descriptor[connected.fileno()] = connection
            self._poller.register(connected.fileno(), select.EPOLLIN)
        for connection in list(self._connections.values()):
            if connection.side is None and time.monotonic() - connection.greeted_s > SIDE_DEADLINE_S:
                self._part(connection)

    def _part(self, connection: Connection) -> None:
        """A peer is gone: its tickets, leases and segments go with it."""
        log.info("%s has gone; its tickets and leases are freed", connection.name)
        self._tickets.drop_all_of(connection.owner)
        if connection.side is not None:
            self._poller.unregister(connection.side.fileno())
            self._by_descriptor.pop(connection.side.fileno(), None)
        self._node.plane.forget(connection)
        connection.side = None
        if self._connections.get(connection.identity) is connection:
            del self._connections[connection.identity]
        self._describe_activity()

    def _dispatch(self, connection: Connection, message: Message, by_side: bool) -> None:
        if isinstance(message, Call | Backward | Drop | Release):
            connection.take_back(message.released)
            if message.released:
                faults.reach("acked")
        if isinstance(message, Call | Backward):
            if message.id <= connection.last_id:
                log.warning("%s: call %d came twice and is not run again", connection.name, message.id)
                return
            connection.last_id = message.id
            faults.reach("after_receive")
            with tracing.span(_label(message), "protocol"), LogFields(peer=connection.name, req=message.id):
                self._answer(connection, message, by_side)
            return
        if isinstance(message, Drop):
            self._tickets.drop(connection.owner, message.tickets)
        elif not isinstance(message, Release):
            self._count_bad_frame(connection.identity, ProtocolError(f"{type(message).__name__} is not for a server"))
        self._describe_activity()

    def _answer(self, connection: Connection, message: Call | Backward, by_side: bool) -> None:
        """Run one call and send its one answer, whatever happens."""
        if tracing.active is not None:
            tracing.active.flow(f"{connection.owner}>{message.id}", is_start=False, at_ns=time.monotonic_ns())
        frame = self._run(connection, message)
        self._activity.busy, self._activity.busy_call = "", None
        self._activity.ended(connection.identity, message.id)
        self._describe_activity()  # before the answer: who has it may ask what is kept now
        self._reply(connection, message.id, frame, by_side)
        faults.reach("header_sent")

    def _run(self, connection: Connection, message: Call | Backward) -> bytes:
        """The frame of a call's one answer."""
        try:
            return self._executor.run(connection, message)
        except MoraError as error:
            code, text = error.code, str(error)
        except (Exception, SystemExit) as error:
            # the boundary of the process: the caller gets type and message, the traceback stays in this server's log
            what = self._activity.busy or "before the agent was asked"
            log.exception("%s failed", what)
            code, text = AgentFailed.code, f"{what}: {type(error).__name__}: {error}"
        # only now, when the error and all that its traceback held is gone, are the call's leases over;
        # its text may hold what is no UTF-8, such as a file name
        shown = text[:_MAX_ERROR_LENGTH].encode("utf-8", "backslashreplace").decode()
        return encode(Failure(message.id, code, shown, connection.released()))

    def _reply(self, connection: Connection, number: int, frame: bytes, by_side: bool) -> None:
        """Answer the way the call came."""
        if tracing.active is not None:
            tracing.active.flow(f"{connection.owner}<{number}", is_start=True, at_ns=time.monotonic_ns())
        if not by_side:
            self._send_over_zeromq(connection.identity, frame)
        elif connection.side is not None:
            try:
                connection.side.send_frame(frame)
            except TransportError as error:
                log.warning("%s cannot be answered (%s)", connection.name, error)
                self._part(connection)
                return
            self._watch_for_room(connection)
            self._idle_since_ns = time.monotonic_ns()

    def _send_over_zeromq(self, identity: bytes, frame: bytes) -> None:
        try:
            self._router.send_multipart([identity, frame], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning("%r cannot be answered (%s)", identity[:40], error)

    def _flush(self, connection: Connection) -> None:
        if connection.side is None:
            return
        try:
            connection.side.flush()
        except TransportError:
            return  # its end is read next
        self._watch_for_room(connection)

    def _watch_for_room(self, connection: Connection) -> None:
        """Be told when a socket that was full takes packets again."""
        side = connection.side
        if side is not None and side.has_unsent != connection.is_watched_for_room:
            connection.is_watched_for_room = side.has_unsent
            self._poller.modify(side.fileno(), select.EPOLLIN | (select.EPOLLOUT if side.has_unsent else 0))

    def reclaim(self, timeout_s: float) -> bool:
        """Wait until a client may have given slots back (for `Arena`); False when none holds any.

        Messages that come meanwhile are served after the present call.
        """
        if not any(connection.exports for connection in self._connections.values()):
            return False
        for descriptor, events in self._poller.poll(min(timeout_s, _TICK_S)):
            connection = self._by_descriptor.get(descriptor)
            if connection is None or connection.side is None:
                continue
            if events & select.EPOLLOUT:
                self._flush(connection)
            while self._read_side(connection, self._take_early):
                pass
            if not connection.side.is_open:
                self._part(connection)
        return True

    def _take_early(self, connection: Connection, message: Message, by_side: bool) -> None:
        if isinstance(message, Call | Backward | Drop | Release):
            connection.take_back(message.released)
        self._early.append((connection, message, by_side))

    def holders(self) -> str:
        """Which clients hold what (for `Arena`)."""
        return "; ".join(connection.holding() for connection in self._connections.values()) or "nobody else any"

    def _describe_activity(self) -> None:
        arena = self._node.plane.arena
        self._activity.num_tickets = len(self._tickets)
        self._activity.activation_nbytes = self._tickets.nbytes
        self._activity.num_slots = arena.num_live
        self._activity.arena_nbytes = arena.allocated_nbytes
        self._activity.spilled_nbytes = arena.spilled_nbytes
        if tracing.active is not None:
            kept = {"tickets": self._activity.num_tickets, "nbytes": self._activity.activation_nbytes}
            tracing.active.count("activations", kept)

    def vitals(self) -> Vitals:
        """What this server is doing, for its heartbeats; called by another thread."""
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
        }

    def close(self) -> None:
        """End orderly: agents first, then sockets."""
        for agent in self._agents.values():
            agent.close()
        self._control_thread.end(timeout_s=2.0)
        self._authenticator.stop()
        self._poller.close()
        self._router.close(linger=_LAST_ANSWER_MS)
        self._control.close(linger=0)
        self._side.close()


def memory_gauge(device: torch.device) -> Callable[[], int]:
    """A function that tells the bytes allocated on the device; of the CPU the process's resident memory."""
    if device.type == "cuda":
        return lambda: torch.cuda.memory_allocated(device)
    process = psutil.Process()
    last = 0

    def resident() -> int:
        nonlocal last
        with contextlib.suppress(OSError):  # no descriptor is left to look with
            last = int(process.memory_info().rss)
        return last

    return resident


def _label(message: Call | Backward) -> str:
    return f"call {message.agent}.{message.method}" if isinstance(message, Call) else "call backward"
