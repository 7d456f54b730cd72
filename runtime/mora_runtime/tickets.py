"""Tickets: autograd graphs that a server keeps between the forward and the backward of one micro-batch."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mora_runtime.errors import BadArgument, TicketSpent, TooManyTickets, UnknownTicket
from mora_runtime.limits import MAX_NUM_TICKETS

_NUM_REMEMBERED = 4096


@dataclass
class Ticket:
    """A kept graph: leaves that get a gradient, outputs that can receive one, and who may run its backward."""

    owner: str
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]


class TicketTable:
    """All kept graphs of one server. A ticket is good for one backward, by the peer it was given to."""

    def __init__(self) -> None:
        self._tickets: dict[int, Ticket] = {}
        self._spent: deque[int] = deque(maxlen=_NUM_REMEMBERED)
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._tickets)

    def check_room(self) -> None:
        """Refuse a forward whose graph could not be kept, before it is computed (TooManyTickets)."""
        if len(self._tickets) >= MAX_NUM_TICKETS:
            raise TooManyTickets(
                f"{len(self._tickets)} graphs wait for their backward, the most this server keeps; "
                "run backward, or drop tickets, before more forwards"
            )

    def keep(self, owner: str, inputs: dict[str, torch.Tensor], outputs: dict[str, torch.Tensor]) -> int:
        """Keep the graph between `inputs` and `outputs`; returns the ticket's number."""
        number = next(self._numbers)
        self._tickets[number] = Ticket(owner, inputs, outputs)
        return number

    def backward(self, owner: str, number: int, grads: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run a ticket's backward: parameters accumulate `.grad`, gradients of the inputs come back by name.

        The ticket is spent whatever happens: after an error its graph may be half-consumed.

        Raises:
            UnknownTicket, TicketSpent: saying what to do.
            BadArgument: a gradient for an output that is none, or of another shape.
        """
        ticket = self._take(owner, number)
        outputs, gradients = _paired(ticket, grads)
        torch.autograd.backward(outputs, gradients)
        return {name: leaf.grad for name, leaf in ticket.inputs.items() if leaf.grad is not None}

    def _take(self, owner: str, number: int) -> Ticket:
        ticket = self._tickets.get(number)
        if ticket is None or ticket.owner != owner:
            if number in self._spent:
                raise TicketSpent(
                    f"backward of ticket {number} has already run and its graph is freed; run the forward again"
                )
            raise UnknownTicket(f"ticket {number} is not held for this caller; run the forward again")
        del self._tickets[number]
        self._spent.append(number)
        return ticket

    def drop(self, owner: str, numbers: list[int]) -> None:
        """Free graphs that will not be used; numbers of others mean nothing."""
        for number in numbers:
            ticket = self._tickets.get(number)
            if ticket is not None and ticket.owner == owner:
                del self._tickets[number]
                self._spent.append(number)

    def drop_all_of(self, owner: str) -> None:
        """A peer is gone: free all its graphs."""
        self.drop(owner, [number for number, ticket in self._tickets.items() if ticket.owner == owner])


def _paired(ticket: Ticket, grads: Mapping[str, torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    for name in grads:
        if name not in ticket.outputs:
            raise BadArgument(f"gradient for `{name}`: no such differentiable output; there are {list(ticket.outputs)}")
    if not grads:
        if len(ticket.outputs) != 1 or next(iter(ticket.outputs.values())).numel() != 1:
            raise BadArgument(f"expected gradients for {list(ticket.outputs)}: only a single scalar has one by itself")
        output = next(iter(ticket.outputs.values()))
        return [output], [torch.ones_like(output)]
    outputs, gradients = [], []
    for name, gradient in grads.items():
        output = ticket.outputs[name]
        if gradient.shape != output.shape:
            raise BadArgument(f"gradient for `{name}`: expected shape {list(output.shape)}, got {list(gradient.shape)}")
        outputs.append(output)
        gradients.append(gradient.to(output.device, output.dtype))
    return outputs, gradients
