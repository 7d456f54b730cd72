"""A server: one process that hosts agents of one environment and runs their methods one after the other.

The thread that runs agents reads the ROUTER itself, so a call costs no hand-over between threads. Errors of any call
become one answer; nothing a peer sends ends the loop.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import zmq

from mora_runtime.activity import BAD_FRAMES_LOGGED, Activity, ControlThread, publish
from mora_runtime.agent import Agent, check_arguments, method_of, methods_of
from mora_runtime.errors import AgentFailed, BadArgument, FrameError, MoraError, ProtocolError, UnknownAgent
from mora_runtime.frames import decode, encode
from mora_runtime.limits import SIDE_DEADLINE_S
from mora_runtime.logs import start_logging
from mora_runtime.messages import (
    PROTOCOL_VERSION,
    Backward,
    Call,
    Drop,
    Failure,
    Hello,
    Message,
    Release,
    Result,
    Welcome,
)
from mora_runtime.node import Node
from mora_runtime.plane import Peer, TensorRef
from mora_runtime.run_directory import RunDirectory
from mora_runtime.server_settings import ServerSettings
from mora_runtime.side_channel import SideChannel, SideListener
from mora_runtime.sockets import authenticator, server_socket
from mora_runtime.supervision import SupervisorLink
from mora_runtime.tickets import TicketTable
from mora_runtime.values import from_wire, leases_of, to_wire

log = logging.getLogger(__name__)
_MAX_ERROR_LENGTH = 4000
_TICK_MS = 1000
_LAST_ANSWER_MS = 1000  # that an answer may still take on its way when the server ends


class Connection(Peer):
    """A greeted client."""

    def __init__(self, name: str, identity: bytes, token: str) -> None:
        super().__init__(name)
        self.identity = identity
        self.token = token
        self.owner = identity.decode("latin-1")  # of its tickets
        self.greeted_s = time.monotonic()
        self.last_id = 0  # ids increase, so an id that is not larger has been run already


class Server:
    """Serves calls on agents.

    Args:
        agents: by name.
        device: where tensor arguments are moved before an agent sees them.
    """

    def __init__(self, node: Node, settings: ServerSettings, agents: Mapping[str, Agent], link: SupervisorLink) -> None:
        self._node = node
        self._settings = settings
        self._agents = agents
        self._link = link
        self._device = torch.device(settings.device)
        self._tickets = TicketTable()
        self._connections: dict[bytes, Connection] = {}
        self._activity = Activity()
        publish(self._activity)
        self._num_bad_frames = 0
        self._next_tick_s = 0.0
        run = node.run
        # first, because it refuses where another server listens, while ZeroMQ would silently take its traffic over
        self._side = SideListener(str(run.socket(settings.role, "side")))
        self._authenticator = authenticator(node.context, run)
        self._router = server_socket(node.context, run, f"ipc://{run.socket(settings.role, 'calls')}")
        self._control = server_socket(node.context, run, f"ipc://{run.socket(settings.role, 'control')}")
        self._control_thread = ControlThread(self._control, self._activity)
        self._control_thread.start()
        self._poller = zmq.Poller()
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self._side.fileno(), zmq.POLLIN)
        self._poller.register(link.fileno(), zmq.POLLIN)

    def serve(self) -> None:
        """Run until a stop is requested."""
        while not self._link.stop_requested():
            ready = dict(self._poller.poll(_TICK_MS))
            if self._router in ready:
                self._take(self._router.recv_multipart())
            if len(ready) > (self._router in ready) or time.monotonic() > self._next_tick_s:
                self._tend_side_sockets()
                self._next_tick_s = time.monotonic() + _TICK_MS / 1000

    def _take(self, parts: list[bytes]) -> None:
        """One message of one peer."""
        identity = parts[0]
        try:
            if len(parts) != 2:
                raise FrameError(f"expected one frame, got {len(parts) - 1}")
            message = decode(parts[1])
        except FrameError as error:
            self._count_bad_frame(identity, error)
            if identity not in self._connections:  # most likely a peer of another version, which should learn it now
                self._send(identity, encode(Failure(0, error.code, str(error), [])))
            return
        if isinstance(message, Hello):
            self._greet(identity, message)
            return
        connection = self._connections.get(identity)
        if connection is None:
            self._refuse_stranger(identity, message)
            return
        if connection.side is None:
            self._tend_side_sockets()
        self._dispatch(connection, message)
        self._describe_activity()

    def _count_bad_frame(self, identity: bytes, error: MoraError) -> None:
        self._num_bad_frames += 1
        if self._num_bad_frames <= BAD_FRAMES_LOGGED:
            log.warning("dropped a message of %r: %s: %s", identity[:40], type(error).__name__, error)

    def _refuse_stranger(self, identity: bytes, message: Message) -> None:
        error = ProtocolError(f"{type(message).__name__} before HELLO; connect again")
        self._count_bad_frame(identity, error)
        if isinstance(message, Call | Backward):
            self._send(identity, encode(Failure(message.id, error.code, str(error), [])))

    def _greet(self, identity: bytes, hello: Hello) -> None:
        if hello.protocol != PROTOCOL_VERSION or not identity.startswith(f"{hello.name}#".encode()):
            text = (
                f"expected a HELLO of protocol version {PROTOCOL_VERSION} with the name of its own socket, got version "
                f"{hello.protocol}; update the older side"
            )
            self._send(identity, encode(Failure(0, ProtocolError.code, text, [])))
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
        self._send(identity, encode(welcome))

    def _tend_side_sockets(self) -> None:
        """Match new side sockets to their connections; free what peers held whose side socket has ended."""
        by_token = {connection.token: connection for connection in self._connections.values()}
        for token, connected in self._side.accept():
            connection = by_token.get(token)
            if connection is None or connection.side is not None:
                connected.close()
                continue
            connection.side = SideChannel(connected, connection.name)
            self._poller.register(connected.fileno(), zmq.POLLIN)
        for connection in list(self._connections.values()):
            if connection.side is not None:
                self._node.plane.receive_segments(connection)
                if not connection.side.is_open:
                    self._part(connection)
            elif time.monotonic() - connection.greeted_s > SIDE_DEADLINE_S:
                self._part(connection)  # died between its HELLO and its side socket

    def _part(self, connection: Connection) -> None:
        """A peer is gone: its tickets, leases and segments go with it."""
        log.info("%s has gone; its tickets and leases are freed", connection.name)
        self._tickets.drop_all_of(connection.owner)
        if connection.side is not None:
            self._poller.unregister(connection.side.fileno())
        self._node.plane.forget(connection)
        self._connections.pop(connection.identity, None)
        self._describe_activity()

    def _dispatch(self, connection: Connection, message: Message) -> None:
        if isinstance(message, Call | Backward | Drop | Release):
            connection.take_back(message.released)
        if isinstance(message, Call | Backward):
            if message.id <= connection.last_id:
                log.warning("%s: call %d came twice and is not run again", connection.name, message.id)
                return
            connection.last_id = message.id
            self._answer(connection, message)
        elif isinstance(message, Drop):
            self._tickets.drop(connection.owner, message.tickets)
        elif not isinstance(message, Release):
            self._count_bad_frame(connection.identity, ProtocolError(f"{type(message).__name__} is not for a server"))

    def _answer(self, connection: Connection, message: Call | Backward) -> None:
        """Run one call and send its one answer, whatever happens."""
        run = self._call if isinstance(message, Call) else self._backward
        try:
            self._send(connection.identity, run(connection, message))  # type: ignore[arg-type]
            return
        except MoraError as error:
            code, text = error.code, str(error)
        except (Exception, SystemExit) as error:
            # the boundary of the process: the caller gets type and message, the traceback stays in this server's log
            what = self._activity.busy or "before the agent was asked"
            log.exception("%s failed", what)
            code, text = AgentFailed.code, f"{what}: {type(error).__name__}: {error}"
        finally:
            self._activity.busy, self._activity.busy_call = "", None
        # only now, when the error and all that its traceback held is gone, are the call's leases over;
        # its text may hold what is no UTF-8, such as a file name
        shown = text[:_MAX_ERROR_LENGTH].encode("utf-8", "backslashreplace").decode()
        self._send(connection.identity, encode(Failure(message.id, code, shown, connection.released())))

    def _result(
        self, connection: Connection, number: int, values: dict[str, Any], ticket: int | None, compute_ns: int
    ) -> bytes:
        """The frame of a RESULT; when it cannot be made, nothing stays leased or kept for it."""
        wire: dict[str, Any] = {}
        released: list[int] = []
        try:
            wire = to_wire(self._node.plane, connection, values)
            released = connection.released()
            return encode(Result(number, wire, ticket, compute_ns, released))
        except BaseException:
            connection.take_back(leases_of(wire))
            connection.to_release.extend(released)
            if ticket is not None:
                self._tickets.drop(connection.owner, [ticket])
            raise

    def _begin(self, connection: Connection, what: str, number: int) -> int:
        self._activity.busy_since_ns = time.monotonic_ns()
        self._activity.busy_call, self._activity.busy = (connection.identity, number), what
        self._activity.num_calls += 1
        return time.perf_counter_ns()

    def _call(self, connection: Connection, message: Call) -> bytes:
        where = f"{message.agent}.{message.method}"
        # before anything is refused, so that the leases of its tensors end with it
        received = from_wire(self._node.plane, connection, message.arguments)
        agent = self._agents.get(message.agent)
        if agent is None:
            raise UnknownAgent(f"no agent `{message.agent}` here; there are {', '.join(sorted(self._agents))}")
        method = method_of(agent, message.agent, message.method)
        if message.grad is not None:
            if not method.differentiable:
                raise BadArgument(f"{where} is not differentiable; call it without grad")
            self._tickets.check_room()
        arguments, leaves = self._arguments(where, received, message.grad or [])
        received.clear()
        check_arguments(where, method, arguments)
        started_ns = self._begin(connection, where, message.id)
        with torch.set_grad_enabled(message.grad is not None):
            returned = getattr(agent, message.method)(**arguments)
        values: dict[str, Any] = returned if isinstance(returned, dict) else {"value": returned}
        compute_ns = time.perf_counter_ns() - started_ns
        ticket = None
        if message.grad is not None:
            named = _named_tensors(values)
            outputs = {name: value for name, value in named.items() if value.requires_grad}
            ticket = self._tickets.keep(connection.owner, leaves, outputs)
            values = _detached(values)
        arguments.clear()
        return self._result(connection, message.id, values, ticket, compute_ns)

    def _arguments(
        self, where: str, received: Mapping[str, Any], grad: list[str]
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Local values of the arguments; those named in `grad` as leaves that collect a gradient, by name."""
        leaves: dict[str, torch.Tensor] = {}
        arguments = {name: self._local(name, value, grad, leaves) for name, value in received.items()}
        for name in grad:
            if not any(leaf == name or leaf.startswith(f"{name}.") for leaf in leaves):
                raise BadArgument(f"{where}({name}): a gradient is asked for, but it is no floating-point tensor")
        return arguments, leaves

    def _local(self, name: str, value: Any, grad: list[str], leaves: dict[str, torch.Tensor]) -> Any:
        if isinstance(value, list):
            return [self._local(f"{name}.{index}", item, grad, leaves) for index, item in enumerate(value)]
        if not isinstance(value, torch.Tensor | TensorRef):
            return value
        tensor = (value.tensor() if isinstance(value, TensorRef) else value).to(self._device)
        wanted = name in grad or name.partition(".")[0] in grad
        if wanted and tensor.is_floating_point():
            tensor = leaves[name] = tensor.detach().requires_grad_(True)
        return tensor

    def _backward(self, connection: Connection, message: Backward) -> bytes:
        received = from_wire(self._node.plane, connection, message.grads)
        grads = {name: value.tensor() if isinstance(value, TensorRef) else value for name, value in received.items()}
        if not all(isinstance(value, torch.Tensor) for value in grads.values()):
            raise BadArgument("backward: expected every gradient to be a tensor")
        del received
        started_ns = self._begin(connection, "backward", message.id)
        gradients = self._tickets.backward(connection.owner, message.ticket, grads)
        compute_ns = time.perf_counter_ns() - started_ns
        grads.clear()
        return self._result(connection, message.id, dict(gradients), None, compute_ns)

    def _send(self, identity: bytes, frame: bytes) -> None:
        try:
            self._router.send_multipart([identity, frame], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning("%r cannot be answered (%s)", identity[:40], error)

    def _describe_activity(self) -> None:
        arena = self._node.plane.arena
        self._activity.num_tickets = len(self._tickets)
        self._activity.num_slots = arena.num_live
        self._activity.arena_nbytes = arena.allocated_nbytes

    def close(self) -> None:
        """End orderly: agents first, then sockets."""
        for agent in self._agents.values():
            agent.close()
        self._control_thread.end(timeout_s=2.0)
        self._authenticator.stop()
        self._router.close(linger=_LAST_ANSWER_MS)
        self._control.close(linger=0)
        self._side.close()


def _named_tensors(values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors of a result by name; those in a list are `name.0`, `name.1`, ..."""
    named: dict[str, torch.Tensor] = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            named[name] = value
        elif isinstance(value, list | tuple):
            named.update(_named_tensors({f"{name}.{index}": item for index, item in enumerate(value)}))
    return named


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {name: _detached(item) for name, item in value.items()}
    return [_detached(item) for item in value] if isinstance(value, list | tuple) else value


def serve(settings: ServerSettings, build: Callable[[ServerSettings], Mapping[str, Agent]]) -> int:
    """Body of a server process: build the agents, say ready, serve until asked to stop.

    Args:
        build: loads the agents; what it raises is told to the launcher in one line and ends the process.

    Returns:
        Exit code: 0 after an orderly stop, 1 when building or the server itself failed.
    """
    link = SupervisorLink(settings.supervisor_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to act on
    signal.signal(signal.SIGTERM, lambda number, frame: link.request_stop())
    run = RunDirectory.open(settings.run_dir)  # type: ignore[arg-type]
    start_logging(run, role=settings.role, generation=settings.generation)
    if settings.cpu_affinity:
        os.sched_setaffinity(0, settings.cpu_affinity)
    torch.set_num_threads(settings.num_threads)
    torch.manual_seed(settings.seed)
    node = Node.open(run, settings.role, settings.generation, arena_budget_nbytes=settings.arena_budget_nbytes)
    try:
        agents = build(settings)
    except Exception as error:
        # whatever a model library raises while loading: one line for the person, the traceback for the log
        log.exception("building the agents failed")
        link.failed(f"could not load its agents: {type(error).__name__}: {error}")
        return 1
    try:
        server = Server(node, settings, agents, link)
    except MoraError as error:
        link.failed(f"could not serve: {error}")
        return 1
    link.ready()
    log.info("serving %s", ", ".join(agents))
    try:
        server.serve()
    except Exception as error:
        # a fault of this module, never of a call: the launcher ends the job rather than wait for answers
        log.exception("the server ended by a fault of its own")
        link.failed(f"ended by a fault of its own: {type(error).__name__}: {error}")
        return 1
    server.close()
    node.close()
    return 0
