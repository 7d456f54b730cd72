"""`RemoteModule`: a module in another process that autograd treats like a local one."""

from __future__ import annotations

from typing import Any

import torch

from mora_runtime.errors import BadArgument, TicketSpent
from mora_runtime.rpc.client import Client
from mora_runtime.rpc.pending import GraphHandle, Reply
from mora_runtime.tensors.tensor_store import TensorRef


class RemoteModule(torch.nn.Module):
    """Calls a `ModuleAgent` of a server, with forward and backward as parts of the local autograd graph.

    Supports several inputs and outputs, and inputs that need no gradient; under `torch.no_grad` no graph is kept
    anywhere. The server's parameters accumulate their gradients there, even if no input needs one. A graph allows one
    backward (a second raises TicketSpent: run the forward again); the server frees it when it is freed here.

    Args:
        client: connection to the server.
        agent: name of the agent.
        deadline_s: for each forward and backward.
    """

    def __init__(self, client: Client, agent: str, *, deadline_s: float = 600.0) -> None:
        super().__init__()
        self._client = client
        self._agent = agent
        self._deadline_s = deadline_s

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run the remote forward; returns one tensor, or a tuple if the remote module returns several."""
        if torch.is_grad_enabled():
            # its gradient is never used: it makes autograd call backward even if only remote parameters need gradients
            anchor = torch.empty((), requires_grad=True)
            outputs: tuple[torch.Tensor, ...] = _Boundary.apply(self, anchor, *inputs)  # type: ignore[no-untyped-call]
        else:
            outputs = tuple(ref.tensor() for ref in self._outputs(self._call(inputs, None)))
        return outputs[0] if len(outputs) == 1 else outputs

    def _call(self, inputs: tuple[torch.Tensor, ...], grad: tuple[str, ...] | None) -> Reply:
        return self._client.call(
            self._agent, "forward", {"inputs": list(inputs)}, grad=grad, deadline_s=self._deadline_s
        )

    @staticmethod
    def _outputs(reply: Reply) -> list[TensorRef]:
        outputs = reply.values["outputs"]
        if not isinstance(outputs, list) or not all(isinstance(ref, TensorRef) for ref in outputs):
            raise BadArgument("a remote module must return tensors")
        return outputs


class _Boundary(torch.autograd.Function):
    """The edge between the local graph and the server's."""

    @staticmethod
    def forward(
        ctx: Any, remote: RemoteModule, anchor: torch.Tensor, *inputs: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        wants = [tensor.requires_grad for tensor in inputs]
        grad = tuple(f"inputs.{index}" for index, wanted in enumerate(wants) if wanted)
        reply = remote._call(inputs, grad)
        ctx.remote, ctx.wants = remote, wants
        ctx.ticket = reply.ticket
        outputs = tuple(ref.tensor() for ref in remote._outputs(reply))
        # as in the local module: only outputs that require a gradient on the server pass one back
        ctx.mark_non_differentiable(
            *(output for output, has in zip(outputs, reply.values["differentiable"], strict=True) if not has)
        )
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        ticket: GraphHandle | None = ctx.ticket
        if ticket is None or ticket.spent:
            raise TicketSpent(
                "backward through a remote module has already run and its graph on the server is freed; "
                "run the forward again (retain_graph does not reach across processes)"
            )
        grads = {f"outputs.{index}": g for index, g in enumerate(gradients) if g is not None}
        remote: RemoteModule = ctx.remote
        found = remote._client.backward(ticket, grads, deadline_s=remote._deadline_s)
        inputs = [
            found[f"inputs.{index}"].tensor() if wanted and f"inputs.{index}" in found else None
            for index, wanted in enumerate(ctx.wants)
        ]
        return (None, None, *inputs)
