"""Tickets: autograd graphs that a server keeps between the forward and the backward of one micro-batch."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from mora_runtime.autograd.split_backward import SplitBackward
from mora_runtime.errors import BadArgument, TicketSpent, TooManyTickets, UnknownTicket
from mora_runtime.limits import MAX_NUM_TICKETS

_NUM_REMEMBERED = 4096
_MAX_NUM_LATE = 1  # backwards whose parameter gradients may wait; each keeps its graph


@dataclass
class Graph:
    """The graph of one forward: leaves that get a gradient, and outputs that can receive one."""

    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]


@dataclass
class KeptGraph:
    """A kept graph, or a function that recomputes it, and the peer that may run its backward.

    nbytes: memory kept for it.
    """

    owner: str
    graph: Graph | Callable[[], Graph]
    nbytes: int


class GraphTable:
    """All kept graphs of one server. A ticket allows one backward, by the peer that received it.

    Args:
        budget_nbytes: limit of the memory that all graphs together keep; None = no limit.
    """

    def __init__(self, budget_nbytes: int | None = None) -> None:
        self._budget_nbytes = budget_nbytes
        self._tickets: dict[int, KeptGraph] = {}
        self._spent: deque[int] = deque(maxlen=_NUM_REMEMBERED)
        self._numbers = itertools.count(1)
        self._late: deque[SplitBackward] = deque()
        self._largest_nbytes = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def check_room(self) -> None:
        """Refuse a forward before it is computed if its graph could not be kept (TooManyTickets)."""
        what_to_do = "run backward, or drop tickets, before more forwards"
        if len(self._tickets) >= MAX_NUM_TICKETS:
            raise TooManyTickets(
                f"{len(self._tickets)} graphs wait for their backward, the most this server keeps; {what_to_do}"
            )
        if self._budget_nbytes is None or not self._tickets:  # one graph must always be possible
            return
        if self.nbytes + self._largest_nbytes > self._budget_nbytes:
            owners = ", ".join(sorted({ticket.owner for ticket in self._tickets.values()}))
            raise TooManyTickets(
                f"{len(self._tickets)} graphs of {owners} keep {self.nbytes} bytes, one more takes up to "
                f"{self._largest_nbytes}, the limit is {self._budget_nbytes}: {what_to_do}, or raise "
                "activation_nbytes, or set `recompute: true`"
            )

    def keep(self, owner: str, graph: Graph | Callable[[], Graph], nbytes: int) -> int:
        """Keep a graph, or a function that recomputes it; returns the ticket's number."""
        number = next(self._numbers)
        self._tickets[number] = KeptGraph(owner, graph, nbytes)
        self.nbytes += nbytes
        self._largest_nbytes = max(self._largest_nbytes, nbytes)
        return number

    def backward(
        self, owner: str, number: int, grads: Mapping[str, torch.Tensor], *, inputs_first: bool = False
    ) -> dict[str, torch.Tensor]:
        """Run a ticket's backward: parameters accumulate `.grad`, gradients of the inputs are returned by name.

        The ticket is spent even after an error, because its graph may be half-consumed.

        Args:
            inputs_first: leave the parameters' gradients for `finish_late`.

        Raises:
            UnknownTicket, TicketSpent: run the forward again.
            BadArgument: a gradient for a name that is not an output, or of another shape.
        """
        ticket = self._take(owner, number)
        graph = ticket.graph if isinstance(ticket.graph, Graph) else ticket.graph()
        return self.run(graph, grads, inputs_first=inputs_first)

    def run(self, graph: Graph, grads: Mapping[str, torch.Tensor], *, inputs_first: bool) -> dict[str, torch.Tensor]:
        """Run the backward of a graph that has no ticket; otherwise as `backward`."""
        outputs, gradients = _paired(graph.outputs, grads)
        if inputs_first and graph.inputs:
            self.finish_late(leave=_MAX_NUM_LATE - 1)
            split = SplitBackward(outputs, gradients, graph.inputs)
            found = split.input_gradients()
            self._late.append(split)
            return found
        self.finish_late()  # gradients must be summed in the order of the backwards
        torch.autograd.backward(outputs, gradients)
        return {name: leaf.grad for name, leaf in graph.inputs.items() if leaf.grad is not None}

    @property
    def has_late(self) -> bool:
        """True while parameters' gradients of an earlier backward are still to be computed."""
        return bool(self._late)

    def finish_late(self, *, leave: int = 0) -> None:
        """Compute the parameters' gradients of `inputs_first` backwards, oldest first, except the newest `leave`."""
        while len(self._late) > leave:
            self._late.popleft().accumulate_parameters()

    def _take(self, owner: str, number: int) -> KeptGraph:
        ticket = self._tickets.get(number)
        if ticket is None or ticket.owner != owner:
            if number in self._spent:
                raise TicketSpent(
                    f"backward of ticket {number} has already run and its graph is freed; run the forward again"
                )
            raise UnknownTicket(f"the server keeps no ticket {number} for this caller; run the forward again")
        self._forget(number)
        return ticket

    def _forget(self, number: int) -> None:
        self.nbytes -= self._tickets.pop(number).nbytes
        self._spent.append(number)

    def drop(self, owner: str, numbers: list[int]) -> None:
        """Free graphs that will not be used; tickets of other owners are ignored."""
        for number in numbers:
            ticket = self._tickets.get(number)
            if ticket is not None and ticket.owner == owner:
                self._forget(number)

    def drop_all_of(self, owner: str) -> None:
        """Free all graphs of a peer that is gone."""
        self.drop(owner, [number for number, ticket in self._tickets.items() if ticket.owner == owner])


def _paired(
    known: Mapping[str, torch.Tensor], grads: Mapping[str, torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    for name in grads:
        if name not in known:
            expected = f"expected one of {list(known)}" if known else "the call returned no tensor that has a graph"
            raise BadArgument(f"gradient for `{name}`: no such differentiable output; {expected}")
    if not grads:
        if len(known) != 1 or next(iter(known.values())).numel() != 1:
            raise BadArgument(f"expected gradients for {list(known)}: only a single scalar output needs none")
        output = next(iter(known.values()))
        return [output], [torch.ones_like(output)]
    outputs, gradients = [], []
    for name, gradient in grads.items():
        output = known[name]
        if gradient.shape != output.shape:
            raise BadArgument(f"gradient for `{name}`: expected shape {list(output.shape)}, got {list(gradient.shape)}")
        outputs.append(output)
        gradients.append(gradient.to(output.device, output.dtype))
    return outputs, gradients
