"""What a client has asked for and not seen yet: calls in flight, and tickets for backwards that may still come."""

from __future__ import annotations

import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mora_runtime.errors import TicketSpent
from mora_runtime.tensors.tensor_store import TensorRef

if TYPE_CHECKING:
    from mora_runtime.rpc.client import Client


class GraphHandle:
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

    def check(self) -> None:
        """Raises TicketSpent where it is."""
        if self.spent:
            raise TicketSpent("backward of this ticket has already run, or it was dropped; run the forward again")

    def sent(self) -> None:
        """Its backward is on its way."""
        self.spent = True
        self._forget.detach()


@dataclass(frozen=True)
class Reply:
    """What a call gave: values by name (tensors as `TensorRef`), and what differentiation added.

    gradients: of inputs by argument name, where a backward ran; inputs that no gradient reached are absent.
    ticket: when a graph was kept.
    forward_s, backward_s: inside the agent.
    norms: L2 norms of the gradients that were asked for, float32; inputs that no gradient reached are absent.
    """

    values: dict[str, Any]
    gradients: dict[str, TensorRef]
    ticket: GraphHandle | None
    forward_s: float
    backward_s: float
    norms: dict[str, float]


class PendingReply:
    """A call in flight."""

    def __init__(self, client: Client, call: int, what: str, deadline_s: float) -> None:
        self.id = call
        self.client = client
        self._what = what
        self._deadline = time.monotonic() + deadline_s
        self._deadline_s = deadline_s

    def result(self) -> Reply:
        """Wait for the reply.

        Raises:
            DeadlineExceeded, PeerDied: naming server and call.
            MoraError: what the server answered, as the class it raised.
        """
        return self.client.take_result(self.id, self._what, self._deadline, self._deadline_s)

    def forget(self) -> None:
        """Nobody will ask for the result: its leases and its ticket are given back when it comes."""
        self.client.forget(self.id)

    @property
    def has_ended(self) -> bool:
        """True when `result` returns or raises without waiting."""
        return self.client.has_ended(self.id) or time.monotonic() > self._deadline

    @property
    def remaining_s(self) -> float:
        """Until the deadline."""
        return self._deadline - time.monotonic()


class PendingBackward(PendingReply):
    """A backward in flight."""

    def gradients(self) -> dict[str, TensorRef]:
        """Wait for the input gradients, by argument name; inputs that no gradient reached are absent."""
        return self.result().gradients
