"""One agent's part in a chain: how its calls are made, from what its interface declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mora_environment.interface import Interface
from mora_runtime import Client, PendingReply, Reply, Session, TensorRef
from mora_runtime.errors import ProtocolError

from mora_trainer.chain.micro_batch import MicroBatch
from mora_trainer.settings import StageSettings

Embeddings = Mapping[str, torch.Tensor]
_CONNECT_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Stage:
    """An agent of the chain and its server.

    Args:
        loss_weight: weight of its own loss in L; 0 = it adds none.
        trains: False = its parameters and its z stay as they are, and get no gradient.
        has_optimizer: its server hosts the participant of the step and writes checkpoints; False for a critic.
        is_last: its call computes the loss and runs the backward at once.
    """

    name: str
    client: Client
    interface: Interface
    loss_weight: float
    trains: bool
    is_last: bool
    deadline_s: float
    has_optimizer: bool = True

    @property
    def method(self) -> str:
        """The remote method of a training call: `loss` for an agent that ends the chain, else `forward`."""
        return "loss" if self.is_last and (self.interface.takes or not self.interface.gives) else "forward"

    def arguments(
        self, prompts: tuple[str, ...], seeds: tuple[int, ...], inputs: Mapping[str, Any], embeddings: Embeddings
    ) -> dict[str, Any]:
        """Arguments of every call; `inputs` are the previous agent's outputs, of which this one takes its own."""
        taken = {name: self._taken(name, inputs) for name in self.interface.takes}
        if self.interface.is_critic:
            return {"prompts": list(prompts), **taken}
        return {"z": embeddings.get(self.name), "prompt_keys": list(prompts), "seeds": list(seeds), **taken}

    def _taken(self, name: str, inputs: Mapping[str, Any]) -> Any:
        if name not in inputs:
            raise ProtocolError(f"{self.name}: takes `{name}`, but the agent before it gave {sorted(inputs)}")
        return inputs[name]

    def submit(
        self,
        batch: MicroBatch,
        inputs: Mapping[str, TensorRef],
        embeddings: Embeddings,
        *,
        wants_graph: bool,
        input_gradients: bool,
        loss_scale: float,
        inputs_first: bool,
        before: Client | None = None,
        after: Client | None = None,
    ) -> PendingReply:
        """Submit the forward of a micro-batch; the last stage's backward is part of the same message.

        Args:
            wants_graph: keep a graph for the backward.
            input_gradients: the inputs need gradients too, because an agent before this one trains.
            loss_scale: share of this micro-batch in the mean loss of the step.
            before, after: servers of the stages next to this one, which read its inputs' gradients and its outputs.
        """
        arguments = self.arguments(batch.prompts[self.name], batch.seeds[self.name], inputs, embeddings)
        if self.loss_weight > 0.0 and self.interface.needs_targets:
            arguments["target_keys"] = list(batch.targets[self.name])
        inputs_with_gradient = tuple(self.interface.takes) if input_gradients else ()
        grad = (("z",) if self.trains and self.name in embeddings else ()) + inputs_with_gradient
        at_once = self.is_last and wants_graph
        return self.client.submit(
            self.name,
            self.method,
            arguments,
            grad=grad if wants_graph else None,
            output_grads={"loss": torch.tensor(loss_scale * self.loss_weight)} if at_once else None,
            norms=inputs_with_gradient if at_once else (),
            inputs_first=inputs_first and at_once,
            onward=passed_on(inputs_with_gradient, before) if at_once else passed_on(self.interface.gives, after),
            deadline_s=self.deadline_s,
        )

    def outputs(self, reply: Reply, num_samples: int) -> dict[str, TensorRef]:
        """The outputs that the interface declares, by reference.

        Raises:
            ProtocolError: the agent did not give them, or gave another shape.
        """
        found = {name: reply.values.get(name) for name in self.interface.gives}
        missing = [name for name, value in found.items() if not isinstance(value, TensorRef)]
        if missing:
            raise ProtocolError(
                f"{self.name}.{self.method}: expected tensors {', '.join(self.interface.gives)}, as its interface "
                f"declares, got {sorted(reply.values)}"
            )
        outputs = {name: value for name, value in found.items() if isinstance(value, TensorRef)}
        for name, value in outputs.items():
            self._check_shape(name, value, (num_samples, *self.interface.gives[name].sample_shape))
        return outputs

    def _check_shape(self, name: str, value: TensorRef, declared: tuple[int | None, ...]) -> None:
        fits = value.dtype.is_floating_point and len(value.shape) == len(declared)
        if not fits or any(size not in (None, came) for size, came in zip(declared, value.shape, strict=True)):
            told = ", ".join("any" if size is None else str(size) for size in declared)
            raise ProtocolError(
                f"{self.name}.{self.method}: expected `{name}` as float numbers ({told}), as its interface declares, "
                f"got {value.dtype} {value.shape}; correct the agent or its interface"
            )

    def loss(self, reply: Reply) -> float | None:
        """The agent's own loss; None if it adds none to L.

        Raises:
            ProtocolError: the agent gave none.
        """
        if self.loss_weight <= 0.0:
            return None
        found = reply.values.get("loss")
        if not isinstance(found, TensorRef):
            raise ProtocolError(
                f"{self.name}.{self.method}: expected a scalar tensor `loss`, got {sorted(reply.values)}"
            )
        return float(found.tensor())


def passed_on(names: Iterable[str], reader: Client | None) -> dict[str, Client]:
    """Tensors of a reply that a coordinator never reads: it passes them on to the server of `reader`."""
    return {} if reader is None else dict.fromkeys(names, reader)


def connected_stages(session: Session, chain: Sequence[StageSettings], *, deadline_s: float) -> list[Stage]:
    """Connect to every server of a chain.

    Args:
        deadline_s: for each later call.
    """
    return [
        Stage(
            stage.name,
            session.connect(stage.server, deadline_s=_CONNECT_DEADLINE_S, expected_lock_hash=stage.lock_hash),
            stage.interface,
            loss_weight=stage.loss_weight,
            trains=stage.trains,
            is_last=stage is chain[-1],
            deadline_s=deadline_s,
            has_optimizer=stage.has_optimizer,
        )
        for stage in chain
    ]
