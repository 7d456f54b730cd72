"""The differentiable chain of n agents, O_i = M_i(O_{i-1}, e_i, z_i), its losses and their gradient, over n servers.

Driven by `JointStep`. Outputs and their gradients pass from server to server by reference: the coordinator maps none of
them, and the servers' answers contain the norms of the gradients. Gradients of model parameters stay in the servers;
only z_i, dL/dz_i (kilobytes) and scalars reach the coordinator.

Micro-batches overlap (1F1B): while a server runs the backward of micro-batch k, servers before it run forwards of later
ones. Each server runs its forwards in the order of the micro-batches, and also its backwards, so every sum is
bit-identical to the one without overlap.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from mora_runtime import Client, GraphHandle, PendingReply, Reply, TensorRef, wait_any
from mora_runtime.errors import ProtocolError
from mora_runtime.process import faults

from mora_trainer.chain.micro_batch import MicroBatch, MicroBatchResult
from mora_trainer.chain.stage import Embeddings, Stage, passed_on
from mora_trainer.chain.stopwatch import Stopwatch
from mora_trainer.settings import PipelineSettings


@dataclass
class _Passage:
    """One micro-batch on its way: forward through the stages, then backward through them.

    Leg k < n is the forward of stage k; the last of them includes its backward. Leg k >= n is the backward of stage
    2n - 2 - k.
    """

    batch: MicroBatch
    leg: int = 0
    pending: PendingReply | None = None  # of the current leg; None = this leg has nothing to do
    outputs: dict[str, TensorRef] = field(default_factory=dict)  # of the stage whose forward ran last
    graphs: list[GraphHandle | None] = field(default_factory=list)  # by stage
    losses: dict[str, float] = field(default_factory=dict)
    input_gradients: dict[str, TensorRef] = field(default_factory=dict)  # of the stage whose backward ran last
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)  # dL/dz_i
    norms: dict[str, float] = field(default_factory=dict)  # ||dL/dO_i||
    compute_s: dict[str, float] = field(default_factory=dict)

    @property
    def has_answer(self) -> bool:
        return self.pending is None or self.pending.has_ended


class RemoteChain:
    """Forward and backward of micro-batches over the servers of a chain.

    Args:
        stages: in the order of the forward; the last one has the loss that closes the chain.
        pipeline: how micro-batches overlap.
    """

    def __init__(self, stages: Sequence[Stage], *, pipeline: PipelineSettings) -> None:
        self.stages = tuple(stages)
        self.pipeline = pipeline

    def run(
        self, batches: Sequence[MicroBatch], embeddings: Embeddings, watch: Stopwatch
    ) -> Iterator[MicroBatchResult]:
        """Run forward and backward of every micro-batch; yields results in order, with gradients of the mean loss."""
        yield from _Run(self.stages, self.pipeline, embeddings, watch).results(batches)


class _Run:
    """The micro-batches of one step."""

    def __init__(
        self, stages: Sequence[Stage], pipeline: PipelineSettings, embeddings: Embeddings, watch: Stopwatch
    ) -> None:
        self._stages = stages
        self._pipeline = pipeline
        self._max_in_flight = pipeline.in_flight(len(stages))
        self._embeddings = embeddings
        self._watch = watch
        self._scale = 1.0
        self._legs: list[deque[_Passage]] = [deque() for _ in range(2 * len(stages) - 1)]
        # a stage runs a backward if it, or one before it, trains
        self._has_backward = [any(stage.trains for stage in stages[: number + 1]) for number in range(len(stages))]

    def results(self, batches: Sequence[MicroBatch]) -> Iterator[MicroBatchResult]:
        self._scale = 1.0 / len(batches)
        num_begun = num_ended = 0
        try:
            while num_ended < len(batches):
                while num_begun < len(batches) and num_begun - num_ended < self._max_in_flight:
                    self._submit(_Passage(batches[num_begun]))
                    num_begun += 1
                passage = self._next()
                self._take_answer(passage)
                if passage.leg == len(self._legs) - 1:
                    num_ended += 1
                    yield self._result(passage)
                else:
                    passage.leg += 1
                    self._submit(passage)
        finally:
            for leg in self._legs:
                for passage in leg:
                    if passage.pending is not None:
                        passage.pending.forget()

    def _next(self) -> _Passage:
        """Wait for an answer and take its micro-batch from its leg. Later legs come first, because they end sooner."""
        while True:
            for leg in reversed(self._legs):
                if leg and leg[0].has_answer:
                    return leg.popleft()
            # a server answers in order, so the next answer belongs to the first micro-batch of a leg
            wait_any([leg[0].pending for leg in self._legs if leg and leg[0].pending is not None])

    def _submit(self, passage: _Passage) -> None:
        if passage.leg < len(self._stages):
            passage.pending = self._submit_forward(passage)
        else:
            passage.pending = self._submit_backward(passage, 2 * len(self._stages) - 2 - passage.leg)
        self._legs[passage.leg].append(passage)

    def _submit_forward(self, passage: _Passage) -> PendingReply:
        number = passage.leg
        return self._stages[number].submit(
            passage.batch,
            passage.outputs,
            self._embeddings,
            wants_graph=self._has_backward[number],
            input_gradients=number > 0 and self._has_backward[number - 1],
            loss_scale=self._scale,
            inputs_first=self._pipeline.inputs_first,
            before=self._client(number - 1),
            after=self._client(number + 1),
        )

    def _client(self, number: int) -> Client | None:
        return self._stages[number].client if 0 <= number < len(self._stages) else None

    def _submit_backward(self, passage: _Passage, number: int) -> PendingReply | None:
        stage, graph = self._stages[number], passage.graphs[number]
        if graph is None:
            return None
        grads: dict[str, torch.Tensor | TensorRef] = {
            name: passage.input_gradients[name] for name in stage.interface.gives if name in passage.input_gradients
        }
        if stage.name in passage.losses:
            grads["loss"] = torch.tensor(self._scale * stage.loss_weight)
        passage.graphs[number] = None
        passage.input_gradients = {}
        if not grads:
            graph.drop()
            return None
        asked = tuple(stage.interface.takes) if number > 0 and self._has_backward[number - 1] else ()
        return stage.client.submit_backward(
            graph,
            grads,
            inputs_first=self._pipeline.inputs_first and bool(asked),
            norms=asked,
            onward=passed_on(asked, self._client(number - 1)),
            deadline_s=stage.deadline_s,
        )

    def _take_answer(self, passage: _Passage) -> None:
        if passage.leg < len(self._stages):
            assert passage.pending is not None
            self._take_forward(passage, passage.leg, passage.pending.result())
        elif passage.pending is not None:
            self._take_gradients(passage, 2 * len(self._stages) - 2 - passage.leg, passage.pending.result())
        passage.pending = None

    def _take_forward(self, passage: _Passage, number: int, reply: Reply) -> None:
        stage = self._stages[number]
        loss = stage.loss(reply)
        if loss is not None:
            passage.losses[stage.name] = loss
        passage.compute_s[f"{stage.name}_forward"] = reply.forward_s
        if stage.is_last:
            self._take_gradients(passage, number, reply)
            return
        passage.outputs = stage.outputs(reply, len(passage.batch.seeds[stage.name]))
        if self._has_backward[number] and reply.ticket is None:
            raise ProtocolError(f"{stage.name}.{stage.method}: expected a graph for the backward, got none")
        passage.graphs.append(reply.ticket)

    def _take_gradients(self, passage: _Passage, number: int, reply: Reply) -> None:
        stage = self._stages[number]
        gradients = dict(reply.gradients)
        z = gradients.pop("z", None)
        if z is not None:
            passage.gradients[stage.name] = z.tensor()
        passage.input_gradients = gradients
        passage.compute_s[f"{stage.name}_backward"] = reply.backward_s
        if number > 0 and self._has_backward[number - 1]:
            passage.norms[self._stages[number - 1].name] = math.hypot(*reply.norms.values())

    def _result(self, passage: _Passage) -> MicroBatchResult:
        compute_s = {}
        for stage in self._stages:
            for part in (f"{stage.name}_forward", f"{stage.name}_backward"):
                compute_s[part] = passage.compute_s.get(part, 0.0)
                self._watch.add(part, compute_s[part])
        faults.reach("mapped")
        return MicroBatchResult(
            loss=sum(stage.loss_weight * passage.losses.get(stage.name, 0.0) for stage in self._stages),
            losses=passage.losses,
            gradients={name: passage.gradients.get(name, torch.zeros_like(z)) for name, z in self._embeddings.items()},
            output_gradient_norms={
                stage.name: passage.norms.get(stage.name, 0.0)
                for stage, has_backward in zip(self._stages[:-1], self._has_backward, strict=False)
                if has_backward
            },
            compute_s=compute_s,
        )
