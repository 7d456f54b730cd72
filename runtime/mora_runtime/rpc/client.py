"""A connection to one server: calls, results, tickets. Used by one thread; several calls may be in flight.

Calls go through the doorbell, a Unix socket between the two processes (`wire.doorbell`), or over ZeroMQ if the client
is made so. Greeting, heartbeats and cancellation always go over ZeroMQ.
"""

from __future__ import annotations

import itertools
import logging
import select
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import zmq

from mora_runtime.errors import (
    DeadlineExceeded,
    FrameError,
    MoraError,
    PeerDied,
    ProtocolError,
    SegmentLost,
    error_from_code,
)
from mora_runtime.limits import MAX_NUM_PARTS
from mora_runtime.process import faults
from mora_runtime.rpc.pending import GraphHandle, PendingBackward, PendingReply, Reply
from mora_runtime.rpc.pool_exchange import PoolExchange
from mora_runtime.tensors.marshalling import from_wire, leases_of, to_wire
from mora_runtime.tensors.peer_pool import PeerPool
from mora_runtime.tensors.tensor_store import Peer, TensorRef, TensorStore
from mora_runtime.trace import tracing
from mora_runtime.wire.codec import decode, encode
from mora_runtime.wire.doorbell import Doorbell
from mora_runtime.wire.messages import (
    PROTOCOL_VERSION,
    Backward,
    Call,
    Cancel,
    Drop,
    Failure,
    Hello,
    Message,
    Part,
    Ping,
    Pong,
    PoolOpened,
    Release,
    Result,
    Welcome,
)
from mora_runtime.wire.sockets import has_messages
from mora_runtime.wire.spin import Spin

log = logging.getLogger(__name__)
_RELEASES_BEFORE_SENDING = 64
_DROPS_IN_ONE_MESSAGE = 512
_LAST_WORDS_MS = 50  # messages of a server that has ended may arrive a little later than its end-of-file


def wait_any(pending: Sequence[PendingReply]) -> list[PendingReply]:
    """Wait until at least one of `pending` (of one client or several) has ended, and return those that have.

    A call whose deadline has passed, or whose server has died, has ended too: its `result` raises.
    """
    clients = list({id(each.client): each.client for each in pending}.values())
    spin = clients[0].spin  # all clients of a process share it
    faults.reach("before_receive")
    started_ns = time.monotonic_ns()
    with tracing.span("wait for any", "wait"):
        while True:
            for client in clients:
                client._take_arrived()
            ended = [each for each in pending if each.has_ended]
            if ended:
                spin.waited(time.monotonic_ns() - started_ns)
                return ended
            if time.monotonic_ns() < started_ns + spin.ns:
                spin.give_way()
                continue
            _park(clients, min(each.remaining_s for each in pending))


def wait_for_messages(clients: Sequence[Client], timeout_s: float) -> None:
    """Accept messages that have arrived for these clients; if there are none, wait for some first."""
    if not any([client._take_arrived() for client in clients]):
        _park(clients, timeout_s)
        for client in clients:
            client._take_arrived()


def _park(clients: Sequence[Client], timeout_s: float) -> None:
    """Sleep until something arrives for one of the clients."""
    poller = select.poll()
    for client in clients:
        if client._is_readable():
            return
        for descriptor, events in client._descriptors():
            poller.register(descriptor, events)
    poller.poll(max(0.0, timeout_s * 1000) + 1)
    for client in clients:
        client._flush_unsent()


def _readers(onward: Mapping[str, Client] | None) -> dict[str, str] | None:
    """Identities of the servers that will read tensors of a reply, by name."""
    return {name: client.peer.name for name, client in onward.items()} if onward else None


class Client:
    """A connection to one server. Made by `Session.connect`."""

    def __init__(
        self,
        store: TensorStore,
        calls: zmq.Socket[bytes],
        control: zmq.Socket[bytes],
        server: str,
        doorbell_path: str,
        *,
        identity: str,
        uses_doorbell: bool,
        spin: Spin,
        exchange: PoolExchange,
    ) -> None:
        self.server = server
        self.identity = identity  # of both ZeroMQ sockets; the server identifies this client by it
        self.welcome: Welcome
        self.spin = spin
        self._store = store
        self._exchange = exchange
        self._calls = calls
        self._control = control
        self._doorbell_path = doorbell_path
        self._uses_doorbell = uses_doorbell
        self._peer = Peer(server)
        self._numbers = itertools.count(1)
        self._waiting: set[int] = set()
        self._replies: dict[int, Reply | BaseException] = {}
        self._parts: dict[int, list[dict[str, Any]]] = {}
        self._forgotten: deque[int] = deque()
        self._control_poller = zmq.Poller()
        self._control_poller.register(control, zmq.POLLIN)
        self._is_dead = False

    def greet(self, deadline_s: float, expected_lock_hash: str | None) -> None:
        """Send HELLO, which waits in the socket until the server has started, then connect the doorbell.

        Raises:
            DeadlineExceeded: no answer came in time.
            ProtocolError: the server has another protocol version or was built from another lock.
        """
        self._send_over_zeromq(Hello(PROTOCOL_VERSION, self._store.identity), self._calls)
        if not self._calls.poll(round(deadline_s * 1000)):
            raise DeadlineExceeded(f"{self.server} did not greet within {deadline_s:.0f} s; see its log in the run")
        answer = self._decode(self._calls.recv(zmq.NOBLOCK))
        if isinstance(answer, Failure):
            raise error_from_code(answer.code, f"{self.server}: {answer.text}")
        if not isinstance(answer, Welcome):
            raise ProtocolError(f"{self.server}: expected WELCOME, got {type(answer).__name__}")
        if expected_lock_hash is not None and answer.lock_hash != expected_lock_hash:
            raise ProtocolError(
                f"{self.server} runs in environment {answer.environment} built from lock {answer.lock_hash}, this "
                f"process expects {expected_lock_hash}; rebuild the environments and start the run again"
            )
        self.welcome = answer
        self._peer.name = answer.name
        self._peer.doorbell = Doorbell.connect(self._doorbell_path, answer.token, self.server)
        self._control_poller.register(self._peer.doorbell.fileno(), zmq.POLLIN)
        self._store.offer_own_pool(self._peer)
        self._exchange.join(self)

    def call(
        self,
        agent: str,
        method: str,
        arguments: Mapping[str, Any],
        *,
        grad: Collection[str] | None = None,
        deadline_s: float,
    ) -> Reply:
        """`submit` a call and wait for its reply."""
        return self.submit(agent, method, arguments, grad=grad, deadline_s=deadline_s).result()

    def submit(
        self,
        agent: str,
        method: str,
        arguments: Mapping[str, Any],
        *,
        grad: Collection[str] | None = None,
        output_grads: Mapping[str, torch.Tensor | TensorRef] | None = None,
        inputs_first: bool = False,
        norms: Collection[str] = (),
        onward: Mapping[str, Client] | None = None,
        parts: bool = False,
        deadline_s: float,
    ) -> PendingReply:
        """Send a call; the server runs the calls of a client in order.

        Args:
            arguments: by name: numbers, text, lists, tensors (placed in shared memory) and references (passed on).
            grad: tensor arguments that need a gradient; () keeps a graph only for the agent's parameters; None keeps no
                graph.
            output_grads: run the backward at once with these gradients of the outputs: the reply has the gradients of
                the inputs, and no ticket.
            inputs_first, norms: of that backward, see `submit_backward`.
            onward: tensors of the reply that this process only passes on, each with the client of the server that will
                read it: they may then stay on a GPU. They are gradients with `output_grads`, else values.
            parts: also take what the agent reports before the reply, see `PendingReply.take_parts`.

        Raises:
            PeerDied, ArenaFull, BoundsError, FrameError, BadArgument: nothing was sent.
        """
        number = next(self._numbers)
        wanted = None if grad is None else list(grad)
        sized = list(norms) or None
        readers = _readers(onward)
        self._send_values(
            number,
            f"{agent}.{method}",
            arguments,
            output_grads,
            lambda values, grads, released: Call(
                number, agent, method, values, wanted, grads, inputs_first, released, sized, readers, parts
            ),
        )
        if parts:
            self._parts[number] = []
        return PendingReply(self, number, f"{agent}.{method}", deadline_s)

    def backward(
        self,
        ticket: GraphHandle,
        grads: Mapping[str, torch.Tensor | TensorRef] | None = None,
        *,
        inputs_first: bool = False,
        deadline_s: float,
    ) -> dict[str, TensorRef]:
        """`submit_backward` and wait for the input gradients."""
        return self.submit_backward(ticket, grads, inputs_first=inputs_first, deadline_s=deadline_s).gradients()

    def submit_backward(
        self,
        ticket: GraphHandle,
        grads: Mapping[str, torch.Tensor | TensorRef] | None = None,
        *,
        inputs_first: bool = False,
        norms: Collection[str] = (),
        onward: Mapping[str, Client] | None = None,
        deadline_s: float,
    ) -> PendingBackward:
        """Send the backward of a ticket. Parameters' gradients stay in the server, the reply has those of the inputs.

        Args:
            grads: by output name; None if the only differentiable output is a scalar (its gradient is 1).
            inputs_first: answer before the parameters' gradients are computed. The server computes them when it is
                idle, and at the latest before anything that could read them.
            norms: inputs whose gradients' norms the answer contains (`Reply.norms`), so that the caller need not map a
                gradient that it only passes on.
            onward: gradients that the caller only passes on, as in `submit`.

        Raises:
            TicketSpent: the ticket has been used; run the forward again.
        """
        ticket.check()
        number = next(self._numbers)
        sized = list(norms) or None
        readers = _readers(onward)
        self._send_values(
            number,
            "backward",
            {},
            grads or {},
            lambda _, wire, released: Backward(
                number, ticket.number, wire or {}, inputs_first, released, sized, readers
            ),
        )
        ticket.sent()
        return PendingBackward(self, number, "backward", deadline_s)

    def _send_values(
        self,
        number: int,
        what: str,
        values: Mapping[str, Any],
        grads: Mapping[str, Any] | None,
        make: Callable[[dict[str, Any], dict[str, Any] | None, list[int]], Message],
    ) -> None:
        """Send a message that leases tensors to the server; if that fails, end the leases."""
        with tracing.span("send " + what, "protocol"):
            sent_ns = self._send_leased(values, grads, make)
            self._waiting.add(number)
            if tracing.active is not None:
                tracing.active.flow(f"{self.identity}>{number}", is_start=True, at_ns=sent_ns)

    def _send_leased(
        self,
        values: Mapping[str, Any],
        grads: Mapping[str, Any] | None,
        make: Callable[[dict[str, Any], dict[str, Any] | None, list[int]], Message],
    ) -> int:
        """As `_send_values`; returns the time just before the message was sent, in ns."""
        wire: dict[str, Any] = {}
        wire_grads: dict[str, Any] | None = None
        try:
            wire = to_wire(self._store, self._peer, dict(values))
            if grads is not None:
                wire_grads = to_wire(self._store, self._peer, dict(grads))
            faults.reach("slot_written")
            sent_ns = time.monotonic_ns()
            self._send_released(lambda released: make(wire, wire_grads, released))
        except MoraError:
            self._peer.take_back([*leases_of(wire), *leases_of(wire_grads or {})])
            raise
        faults.reach("header_sent")
        return sent_ns

    def _send_released(self, make: Callable[[list[int]], Message]) -> None:
        """Send a message that gives leases back; if that fails, the next message gives them back."""
        self._store.collect()
        released = self._peer.released()
        try:
            self._send(make(released))
        except MoraError:
            self._peer.to_release.extend(released)
            raise

    def ping(self, deadline_s: float) -> Pong:
        """Ask the server's control thread what the server is doing; it answers even while an agent computes."""
        return self._ask_control(Ping(next(self._numbers)), deadline_s)

    def cancel(self, pending: PendingReply, deadline_s: float, *, sample: int | None = None) -> Pong:
        """Ask the server to stop a call, or one sample of a batch, at its next safe point."""
        return self._ask_control(Cancel(next(self._numbers), pending.id, sample), deadline_s)

    def _ask_control(self, question: Ping | Cancel, deadline_s: float) -> Pong:
        self._send_over_zeromq(question, self._control)
        deadline = time.monotonic() + deadline_s
        while (remaining_s := deadline - time.monotonic()) > 0:
            ready = dict(self._control_poller.poll(round(remaining_s * 1000) + 1))
            if self._control in ready:
                answer = self._decode(self._control.recv(zmq.NOBLOCK))
                if isinstance(answer, Pong) and answer.id == question.id:
                    return answer
            elif ready:
                self._take_arrived()
                if self._is_dead and not self._control.poll(_LAST_WORDS_MS):
                    raise PeerDied(f"{self.server} has ended; see its log in the run")
        raise DeadlineExceeded(f"{self.server} did not answer on its control socket within {deadline_s:.1f} s")

    def flush(self) -> None:
        """Give back ended leases and dropped tickets now, instead of with the next call."""
        self._store.collect()
        while self._forgotten:
            tickets = [self._forgotten.popleft() for _ in range(min(len(self._forgotten), _DROPS_IN_ONE_MESSAGE))]
            try:
                self._send_released(lambda released, tickets=tickets: Drop(tickets, released))  # type: ignore[misc]
            except MoraError:
                self._forgotten.extend(tickets)
                raise
        while self._peer.to_release:
            self._send_released(Release)

    def take_result(self, number: int, what: str, deadline: float, deadline_s: float) -> Reply:
        """For `PendingReply.result`: wait for the reply of a call and remove it from the client."""
        if not self._is_dead and (len(self._peer.to_release) > _RELEASES_BEFORE_SENDING or self._forgotten):
            self.flush()
        with tracing.span("wait for " + what, "wait"):
            self._await(number, what, deadline, deadline_s)
        reply = self._replies.pop(number)
        self._parts.pop(number, None)
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def _await(self, number: int, what: str, deadline: float, deadline_s: float) -> None:
        faults.reach("before_receive")
        started_ns = time.monotonic_ns()
        while number not in self._replies:
            if self._take_arrived():
                continue
            if self._is_dead:
                raise PeerDied(f"{self.server} has ended, {what} cannot be answered; see its log in the run")
            if time.monotonic_ns() < started_ns + self.spin.ns:
                self.spin.give_way()
                continue
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                self.forget(number)
                raise DeadlineExceeded(f"{self.server}: {what} gave no answer within {deadline_s:.0f} s")
            _park([self], remaining_s)
        self.spin.waited(time.monotonic_ns() - started_ns)

    def forget(self, number: int) -> None:
        """For `PendingReply.forget`."""
        self._waiting.discard(number)
        self._replies.pop(number, None)
        self._parts.pop(number, None)

    def take_parts(self, number: int) -> list[dict[str, Any]]:
        """For `PendingReply.take_parts`."""
        taken = self._parts.get(number, [])
        if taken:
            self._parts[number] = []
        return taken

    def has_ended(self, number: int) -> bool:
        """True if the reply of a call has arrived, or never will because the server is dead."""
        return number in self._replies or self._is_dead

    @property
    def peer(self) -> Peer:
        """Everything that this process shares with the server."""
        return self._peer

    def _take_arrived(self) -> bool:
        """Accept all arrived messages, without waiting, and detect the server's end; False if there are none."""
        doorbell = self._peer.doorbell
        if self._is_dead or doorbell is None:
            return False
        took = False
        while (frame := doorbell.read()) is not None:
            faults.reach("after_receive")
            with tracing.span("receive", "protocol"):
                self._store.receive_segments(self._peer)
                self._accept(self._decode(frame))
            took = True
        if doorbell.has_offers or self._peer.new_pools:
            self._take_pools()
        if not self._uses_doorbell:
            took = self._take_from_zeromq(0) or took
        if not doorbell.is_open:
            # messages over ZeroMQ from before its end may arrive a little later than the end-of-file
            while not self._uses_doorbell and self._take_from_zeromq(_LAST_WORDS_MS):
                took = True
            self._died()
        return took

    def _take_pools(self) -> None:
        """Answer the server's offers of device pools, and pass them on to the other servers."""
        self._store.receive_segments(self._peer)
        pools = self._peer.take_new_pools()
        for pool in pools:
            if pool.opened is not None:
                self.tell(PoolOpened(*pool.key, self._store.identity))
        self._exchange.offered(self, pools)

    def offer(self, pool: PeerPool) -> None:
        """Offer the server the device pool of another; without the offer, the two use host memory."""
        try:
            if not self._is_dead:
                self._store.announce_pool(self._peer, pool)
        except MoraError as error:
            log.warning("%s is not offered the device pool of %s: %s", self.server, pool.owner, error)

    def tell(self, opened: PoolOpened) -> None:
        """Tell the server which process has opened its device pool.

        Raises:
            PeerDied, DeadlineExceeded: the message cannot be sent.
        """
        self._send(opened)

    def _take_from_zeromq(self, timeout_ms: int) -> bool:
        if not self._calls.poll(timeout_ms):
            return False
        with tracing.span("receive", "protocol"):
            self._accept(self._decode(self._calls.recv(zmq.NOBLOCK)))
        return True

    def _is_readable(self) -> bool:
        """True if ZeroMQ already has a message, which its descriptor does not signal again."""
        return not self._uses_doorbell and has_messages(self._calls)

    def _descriptors(self) -> list[tuple[int, int]]:
        """Descriptors to poll, each with its events."""
        doorbell = self._peer.doorbell
        if doorbell is None or self._is_dead:
            return []
        found = [(doorbell.fileno(), select.POLLIN | (select.POLLOUT if doorbell.has_unsent else 0))]
        if not self._uses_doorbell:
            found.append((self._calls.FD, select.POLLIN))
        return found

    def _flush_unsent(self) -> None:
        doorbell = self._peer.doorbell
        if doorbell is not None and doorbell.is_open:
            doorbell.flush()

    def _died(self) -> None:
        self._is_dead = True
        self._exchange.leave(self)
        self._store.forget(self._peer)

    def _decode(self, frame: bytes) -> Message:
        try:
            return decode(frame)
        except FrameError as error:
            raise ProtocolError(f"{self.server} sent an invalid message: {error}") from None

    def _accept(self, message: Message) -> None:
        if not isinstance(message, Result | Failure):
            if isinstance(message, Release):
                self._peer.take_back(message.released)
                return
            if isinstance(message, Part):
                self._accept_part(message)
                return
            if isinstance(message, PoolOpened):
                if not self._store.add_reader(self._peer, message):
                    self._exchange.opened(message)
                return
            raise ProtocolError(f"{self.server}: expected a result, got {type(message).__name__}")
        if tracing.active is not None:
            tracing.active.flow(f"{self.identity}<{message.id}", is_start=False, at_ns=time.monotonic_ns())
        self._peer.take_back(message.released)
        if message.released:
            faults.reach("acked")
        outcome: Reply | BaseException
        if isinstance(message, Failure):
            outcome = error_from_code(message.code, f"{self.server}: {message.text}")
            if isinstance(outcome, SegmentLost):
                self._peer.announced.clear()  # the next tensors send their segments' descriptors again
        else:
            ticket = None if message.ticket is None else GraphHandle(message.ticket, self._forgotten)
            try:
                values = from_wire(self._store, self._peer, message.values)
                gradients = from_wire(self._store, self._peer, message.gradients or {})
                times_s = (message.forward_ns / 1e9, message.backward_ns / 1e9)
                outcome = Reply(values, gradients, ticket, *times_s, message.norms or {})
            except MoraError as error:
                outcome = error  # belongs to this call, even while another call is awaited
        # a reply that is not awaited is dropped here, and its leases and ticket with it
        if message.id in self._waiting:
            self._waiting.discard(message.id)
            self._replies[message.id] = outcome

    def _accept_part(self, message: Part) -> None:
        """Keep a part of an awaited call; any other is dropped here, and its leases with it."""
        self._peer.take_back(message.released)
        try:
            values = from_wire(self._store, self._peer, message.values)
        except MoraError as error:
            log.warning("%s sent a part of a result that is not used: %s", self.server, error)
            return
        parts = self._parts.get(message.id)
        if parts is not None and len(parts) < MAX_NUM_PARTS:
            parts.append(values)

    def _send(self, message: Message) -> None:
        doorbell = self._peer.doorbell
        if self._uses_doorbell and doorbell is not None and not self._is_dead:
            try:
                doorbell.send_frame(encode(message))
            except PeerDied:
                self._died()  # now, because this may be the last use of the client, and the leases must end
                raise
        else:
            self._send_over_zeromq(message, self._calls)

    def _send_over_zeromq(self, message: Message, socket: zmq.Socket[bytes]) -> None:
        if self._is_dead:
            raise PeerDied(f"{self.server} has ended; see its log in the run")
        try:
            socket.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            raise DeadlineExceeded(f"{self.server} takes no more messages; its queue is full") from None

    def close(self) -> None:
        """End the connection; the server then frees this client's leases and tickets."""
        if not self._is_dead:
            self._died()
        self._calls.close()
        self._control.close()
