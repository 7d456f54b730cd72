"""A connection to one server: calls, results, tickets. Used by one thread; several calls may be in flight."""

from __future__ import annotations

import itertools
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import zmq

from mora_runtime.errors import (
    DeadlineExceeded,
    FrameError,
    MoraError,
    PeerDied,
    ProtocolError,
    TicketSpent,
    error_from_code,
)
from mora_runtime.frames import decode, encode
from mora_runtime.messages import (
    PROTOCOL_VERSION,
    Backward,
    Call,
    Cancel,
    Drop,
    Failure,
    Hello,
    Message,
    Ping,
    Pong,
    Release,
    Result,
    Welcome,
)
from mora_runtime.plane import Peer, TensorPlane, TensorRef
from mora_runtime.side_channel import SideChannel
from mora_runtime.values import from_wire, leases_of, to_wire

log = logging.getLogger(__name__)
_RELEASES_BEFORE_SENDING = 64
_DROPS_IN_ONE_MESSAGE = 512
_LAST_WORDS_MS = 50  # what a server said before it ended may be read a little later than its end is seen


class Ticket:
    """The right to run one backward; forgotten tickets free their graph on the server."""

    def __init__(self, number: int, forgotten: deque[int]) -> None:
        self.number = number
        self.spent = False
        self._forget = weakref.finalize(self, forgotten.append, number)
        self._forget.atexit = False

    def drop(self) -> None:
        """Free the server's graph with the next message instead of waiting for garbage collection."""
        self._forget()
        self.spent = True

    def _check(self) -> None:
        if self.spent:
            raise TicketSpent("backward of this ticket has already run, or it was dropped; run the forward again")

    def _sent(self) -> None:
        self.spent = True
        self._forget.detach()


@dataclass(frozen=True)
class Reply:
    """What a call gave: values by name (tensors as `TensorRef`), a ticket when a graph was kept."""

    values: dict[str, Any]
    ticket: Ticket | None
    compute_s: float  # inside the agent


class PendingReply:
    """A call in flight."""

    def __init__(self, client: Client, call: int, what: str, deadline_s: float) -> None:
        self.id = call
        self._client = client
        self._what = what
        self._deadline = time.monotonic() + deadline_s
        self._deadline_s = deadline_s

    def result(self) -> Reply:
        """Wait for the reply.

        Raises:
            DeadlineExceeded, PeerDied: naming server and call.
            MoraError: what the server answered, as the class it raised.
        """
        return self._client._wait(self.id, self._what, self._deadline, self._deadline_s)


class PendingBackward(PendingReply):
    """A backward in flight."""

    def gradients(self) -> dict[str, TensorRef]:
        """Wait for the input gradients, by argument name; inputs that no gradient reached are absent."""
        return self.result().values


class Client:
    """One connected server. Made by `Node.connect`."""

    def __init__(
        self,
        plane: TensorPlane,
        calls: zmq.Socket[bytes],
        control: zmq.Socket[bytes],
        server: str,
        side_path: str,
    ) -> None:
        self.server = server
        self.welcome: Welcome
        self._plane = plane
        self._calls = calls
        self._control = control
        self._side_path = side_path
        self._peer = Peer(server)
        self._numbers = itertools.count(1)
        self._waiting: set[int] = set()
        self._replies: dict[int, Reply | BaseException] = {}
        self._forgotten: deque[int] = deque()
        self._poller = zmq.Poller()
        self._poller.register(calls, zmq.POLLIN)
        self._control_poller = zmq.Poller()
        self._control_poller.register(control, zmq.POLLIN)
        self._is_dead = False

    def greet(self, deadline_s: float, expected_lock_hash: str | None) -> None:
        """HELLO, which waits in the socket until the server is there; then the side socket.

        Raises:
            DeadlineExceeded: nobody answered.
            ProtocolError: the server speaks another protocol version or was built from another lock.
        """
        self._send(Hello(PROTOCOL_VERSION, self._plane.identity))
        if not self._poller.poll(round(deadline_s * 1000)):
            raise DeadlineExceeded(f"{self.server} did not greet within {deadline_s:.0f} s; see its log in the run")
        answer = self._receive(self._calls)
        if isinstance(answer, Failure):
            raise error_from_code(answer.code, f"{self.server}: {answer.text}")
        if not isinstance(answer, Welcome):
            raise ProtocolError(f"{self.server}: expected WELCOME, got {type(answer).__name__}")
        if expected_lock_hash is not None and answer.lock_hash != expected_lock_hash:
            raise ProtocolError(
                f"{self.server} runs in environment {answer.environment} built from lock {answer.lock_hash}, this side "
                f"expects {expected_lock_hash}; rebuild the environments and start the run again"
            )
        self.welcome = answer
        self._peer.name = answer.name
        self._peer.side = SideChannel.connect(self._side_path, answer.token, self.server)
        for poller in (self._poller, self._control_poller):
            poller.register(self._peer.side.fileno(), zmq.POLLIN)

    def call(
        self,
        agent: str,
        method: str,
        arguments: Mapping[str, Any],
        *,
        grad: Collection[str] | None = None,
        deadline_s: float,
    ) -> Reply:
        """`submit` and wait."""
        return self.submit(agent, method, arguments, grad=grad, deadline_s=deadline_s).result()

    def submit(
        self,
        agent: str,
        method: str,
        arguments: Mapping[str, Any],
        *,
        grad: Collection[str] | None = None,
        deadline_s: float,
    ) -> PendingReply:
        """Send a call; the server runs the calls of a client in order.

        Args:
            arguments: by name: numbers, text, lists, tensors (placed in shared memory) and references (passed on).
            grad: tensor arguments that need a gradient; () keeps a graph for the agent's parameters alone; None keeps
                none.

        Raises:
            PeerDied, ArenaFull, BoundsError, FrameError, BadArgument: nothing was sent.
        """
        number = next(self._numbers)
        wanted = None if grad is None else list(grad)
        self._send_values(arguments, lambda wire, released: Call(number, agent, method, wire, wanted, released))
        self._waiting.add(number)
        return PendingReply(self, number, f"{agent}.{method}", deadline_s)

    def backward(
        self,
        ticket: Ticket,
        grads: Mapping[str, torch.Tensor | TensorRef] | None = None,
        *,
        deadline_s: float,
    ) -> dict[str, TensorRef]:
        """`submit_backward` and wait."""
        return self.submit_backward(ticket, grads, deadline_s=deadline_s).gradients()

    def submit_backward(
        self,
        ticket: Ticket,
        grads: Mapping[str, torch.Tensor | TensorRef] | None = None,
        *,
        deadline_s: float,
    ) -> PendingBackward:
        """Send the backward of a ticket. Parameters' gradients stay in the server, input gradients come back.

        Args:
            grads: by output name; None where the only differentiable output is a scalar (its gradient is 1).

        Raises:
            TicketSpent: the ticket has been used; run the forward again.
        """
        ticket._check()
        number = next(self._numbers)
        self._send_values(grads or {}, lambda wire, released: Backward(number, ticket.number, wire, released))
        ticket._sent()
        self._waiting.add(number)
        return PendingBackward(self, number, "backward", deadline_s)

    def _send_values(self, values: Mapping[str, Any], make: Callable[[dict[str, Any], list[int]], Message]) -> None:
        """Send a message that leases tensors to the server; when it cannot be sent, nothing stays leased."""
        wire = to_wire(self._plane, self._peer, dict(values))
        try:
            self._send_released(lambda released: make(wire, released))
        except MoraError:
            self._peer.take_back(leases_of(wire))
            raise

    def _send_released(self, make: Callable[[list[int]], Message]) -> None:
        """Send a message that gives leases back; when it cannot be sent, the next one does."""
        released = self._peer.released()
        try:
            self._send(make(released))
        except MoraError:
            self._peer.to_release.extend(released)
            raise

    def ping(self, deadline_s: float) -> Pong:
        """Ask the server's control thread what it is doing; answered while an agent computes."""
        return self._ask_control(Ping(next(self._numbers)), deadline_s)

    def cancel(self, pending: PendingReply, deadline_s: float) -> Pong:
        """Ask the server to stop a call at its next safe point."""
        return self._ask_control(Cancel(next(self._numbers), pending.id), deadline_s)

    def _ask_control(self, question: Ping | Cancel, deadline_s: float) -> Pong:
        self._send(question, self._control)
        deadline = time.monotonic() + deadline_s
        while (remaining_s := deadline - time.monotonic()) > 0:
            ready = dict(self._control_poller.poll(round(remaining_s * 1000) + 1))
            if self._control in ready:
                answer = self._receive(self._control)
                if isinstance(answer, Pong) and answer.id == question.id:
                    return answer
            elif ready and self._peer.side is not None:
                self._plane.receive_segments(self._peer)
                if not self._peer.side.is_open and not self._control.poll(_LAST_WORDS_MS):
                    raise PeerDied(f"{self.server} has ended; see its log in the run")
        raise DeadlineExceeded(f"{self.server} did not answer on its control socket within {deadline_s:.1f} s")

    def flush(self) -> None:
        """Give back leases and tickets that have ended, without waiting for the next call."""
        while self._forgotten:
            tickets = [self._forgotten.popleft() for _ in range(min(len(self._forgotten), _DROPS_IN_ONE_MESSAGE))]
            try:
                self._send_released(lambda released, tickets=tickets: Drop(tickets, released))  # type: ignore[misc]
            except MoraError:
                self._forgotten.extend(tickets)
                raise
        while self._peer.to_release:
            self._send_released(Release)

    def _wait(self, number: int, what: str, deadline: float, deadline_s: float) -> Reply:
        if not self._is_dead and (len(self._peer.to_release) > _RELEASES_BEFORE_SENDING or self._forgotten):
            self.flush()
        while number not in self._replies:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                self._waiting.discard(number)
                raise DeadlineExceeded(f"{self.server}: {what} gave no answer within {deadline_s:.0f} s")
            self._take_one(remaining_s, what)
        reply = self._replies.pop(number)
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def _take_one(self, timeout_s: float, what: str) -> None:
        if self._is_dead:
            raise PeerDied(f"{self.server} has ended, {what} cannot be answered; see its log in the run")
        ready = dict(self._poller.poll(round(timeout_s * 1000) + 1))
        if self._calls in ready:
            self._accept(self._receive(self._calls))
        elif ready and self._peer.side is not None:
            self._plane.receive_segments(self._peer)
            if not self._peer.side.is_open and not self._calls.poll(_LAST_WORDS_MS):
                self._died()

    def _died(self) -> None:
        self._is_dead = True
        self._plane.forget(self._peer)

    def _receive(self, source: zmq.Socket[bytes]) -> Message:
        try:
            return decode(source.recv(zmq.NOBLOCK))
        except FrameError as error:
            raise ProtocolError(f"{self.server} sent what is no message: {error}") from None

    def _accept(self, message: Message) -> None:
        if not isinstance(message, Result | Failure):
            if isinstance(message, Release):
                self._peer.take_back(message.released)
                return
            raise ProtocolError(f"{self.server}: expected a result, got {type(message).__name__}")
        self._peer.take_back(message.released)
        outcome: Reply | BaseException
        if isinstance(message, Failure):
            outcome = error_from_code(message.code, f"{self.server}: {message.text}")
        else:
            ticket = None if message.ticket is None else Ticket(message.ticket, self._forgotten)
            try:
                values = from_wire(self._plane, self._peer, message.values)
                outcome = Reply(values, ticket, message.compute_ns / 1e9)
            except MoraError as error:
                outcome = error  # of this call, whichever call is being waited for
        # a reply that nobody waits for any more is let go here, and its leases and ticket with it
        if message.id in self._waiting:
            self._waiting.discard(message.id)
            self._replies[message.id] = outcome

    def _send(self, message: Message, socket: zmq.Socket[bytes] | None = None) -> None:
        if self._is_dead:
            raise PeerDied(f"{self.server} has ended; see its log in the run")
        try:
            (socket or self._calls).send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            raise DeadlineExceeded(f"{self.server} takes no more messages; its queue is full") from None

    def close(self) -> None:
        """End the connection; the server then frees what this client held."""
        if not self._is_dead:
            self._died()
        self._calls.close()
        self._control.close()
