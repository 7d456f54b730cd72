"""A client's open requests: calls in flight, and tickets for later backwards."""

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
    """The right to run one backward; when this object is deleted, the server frees the graph."""

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
        """Raise TicketSpent if the ticket cannot be used again."""
        if self.spent:
            raise TicketSpent("backward of this ticket has already run, or it was dropped; run the forward again")

    def sent(self) -> None:
        """Mark the ticket as spent, because its backward has been sent."""
        self.spent = True
        self._forget.detach()


@dataclass(frozen=True)
class Reply:
    """The reply to a call: values by name (tensors as `TensorRef`), and the results of differentiation.

    gradients: of inputs by argument name, if a backward ran; inputs that no gradient reached are absent.
    ticket: of the kept graph, if any.
    forward_s, backward_s: time inside the agent.
    norms: L2 norms of the requested gradients, float32; inputs that no gradient reached are absent.
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
            DeadlineExceeded, PeerDied: the text names server and call.
            MoraError: the server's error, as the same class.
        """
        return self.client.take_result(self.id, self._what, self._deadline, self._deadline_s)

    def take_parts(self) -> list[dict[str, Any]]:
        """Return the values of each part that has arrived and was not taken yet, in order. It does not wait.

        Call it before `result`, which drops parts that were not taken.
        """
        return self.client.take_parts(self.id)

    def forget(self) -> None:
        """Discard the result: its leases and its ticket are given back when it arrives."""
        self.client.forget(self.id)

    @property
    def has_ended(self) -> bool:
        """True when `result` returns or raises without waiting."""
        return self.client.has_ended(self.id) or time.monotonic() > self._deadline

    @property
    def remaining_s(self) -> float:
        """Time until the deadline; negative after it."""
        return self._deadline - time.monotonic()


class PendingBackward(PendingReply):
    """A backward in flight."""

    def gradients(self) -> dict[str, TensorRef]:
        """Wait for the input gradients, by argument name; inputs that no gradient reached are absent."""
        return self.result().gradients
