"""The differentiable chain prompt -> image agent -> video agent -> loss, and its gradient, over two servers.

Driven by `JointStep`; owns only the two clients. The image O_1 and its gradient pass from server to server by
reference: the coordinator maps neither, and the video server's answer contains the norm of dL/dO_1. Gradients of model
parameters stay in the servers; only z_i, dL/dz_i (kilobytes) and scalars reach the coordinator.

Micro-batches overlap (1F1B): while the video server runs forward and backward of micro-batch k, the image server runs
the backward of k - 1 and the forward of k + 1. Each server still runs its backwards in the order of the micro-batches,
so every sum is bit-identical to the one without overlap.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from mora_runtime import Client, GraphHandle, PendingReply, Reply, TensorRef, wait_any
from mora_runtime.errors import ProtocolError
from mora_runtime.process import faults
from mora_runtime.trace import tracing

from mora_trainer.settings import PipelineSettings

IMAGE = "image"
VIDEO = "video"
AGENTS = (IMAGE, VIDEO)  # the order of all sums


@dataclass(frozen=True)
class MicroBatch:
    """Samples that pass through the chain together. Keys refer to results of `encode` and `store_target`."""

    image_prompts: tuple[str, ...]
    video_prompts: tuple[str, ...]
    targets: tuple[str, ...]
    frames: tuple[str, ...]  # first frames of the targets, in the image server; for the image agent's own loss
    seeds: tuple[int, ...]
    image_seeds: tuple[int, ...]  # of O_1's initial noise: `seeds`, or the seeds that the targets were made from


@dataclass(frozen=True)
class MicroBatchResult:
    """Losses and gradients of one micro-batch."""

    loss: float
    image_loss: float | None
    gradients: dict[str, torch.Tensor]  # dL/dz_i by agent, (rows, d_i) float32; empty without modulation
    image_gradient_norm: float  # ||dL/dO_1||_2
    compute_s: dict[str, float] = field(default_factory=dict)  # inside the agents, by part


@dataclass
class Stopwatch:
    """Seconds spent per named part of a step."""

    spent_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time inside the block to `part`."""
        started_s = time.perf_counter()
        try:
            with tracing.span(part, "protocol"):
                yield
        finally:
            self.add(part, time.perf_counter() - started_s)

    def add(self, part: str, spent_s: float) -> None:
        """Add time that was measured elsewhere."""
        self.spent_s[part] = self.spent_s.get(part, 0.0) + spent_s


@dataclass(frozen=True)
class _Rendered:
    """The result of an image forward: O_1 by reference and the ticket of its graph."""

    images: TensorRef  # (B, 3, H, W) in [-1, 1]
    own_loss: float | None
    ticket: GraphHandle
    forward_s: float


@dataclass(frozen=True)
class _LossDone:
    """The result of a video forward and backward: the loss, dL/dz_2, and dL/dO_1 by reference."""

    rendered: _Rendered
    loss: float
    gradients: dict[str, TensorRef]
    image_gradient_norm: float
    forward_s: float
    backward_s: float


class RemoteChain:
    """Forward and backward of micro-batches over an image and a video server.

    Args:
        image, video: connected clients.
        image_loss_weight: weight of the image agent's own loss (0 = the paper: losses only on the last output).
        deadline_s: for each call.
        pipeline: how micro-batches overlap.
    """

    def __init__(
        self,
        image: Client,
        video: Client,
        *,
        image_loss_weight: float,
        deadline_s: float,
        pipeline: PipelineSettings,
    ) -> None:
        self._image = image
        self._video = video
        self._image_loss_weight = image_loss_weight
        self._deadline_s = deadline_s
        self.pipeline = pipeline

    def run(
        self, batches: Sequence[MicroBatch], embeddings: dict[str, torch.Tensor], watch: Stopwatch
    ) -> Iterator[MicroBatchResult]:
        """Run forward and backward of every micro-batch; yields results in order, with gradients of the mean loss."""
        scale = 1.0 / len(batches)
        rendering: deque[PendingReply] = deque()
        judging: deque[tuple[_Rendered, PendingReply]] = deque()
        returning: deque[tuple[_LossDone, PendingReply | None]] = deque()
        num_begun = num_rendered = num_ended = 0
        try:
            while num_ended < len(batches):
                while num_begun < len(batches) and num_begun - num_ended < self.pipeline.max_in_flight:
                    rendering.append(self._submit_image(batches[num_begun], embeddings))
                    num_begun += 1
                if returning and (returning[0][1] is None or returning[0][1].has_ended):
                    loss_done, pending = returning.popleft()
                    num_ended += 1
                    yield self._ended(loss_done, pending, embeddings, watch)
                elif judging and judging[0][1].has_ended:
                    rendered, pending = judging.popleft()
                    loss_done = self._loss_done(rendered, pending.result())
                    returning.append((loss_done, self._submit_image_backward(loss_done, scale)))
                elif rendering and rendering[0].has_ended:
                    rendered = self._rendered(rendering.popleft().result())
                    judging.append((rendered, self._submit_video(batches[num_rendered], rendered, embeddings, scale)))
                    num_rendered += 1
                else:
                    # each server answers in order, so the next answer belongs to the first of one of the queues
                    wait_any([*list(rendering)[:1], *_firsts(judging), *_firsts(returning)])
        finally:
            for pending in (*rendering, *(p for _, p in judging), *(p for _, p in returning if p is not None)):
                pending.forget()

    def _submit_image(self, batch: MicroBatch, embeddings: dict[str, torch.Tensor]) -> PendingReply:
        arguments = {
            "z": embeddings.get(IMAGE),
            "prompt_keys": list(batch.image_prompts),
            "seeds": list(batch.image_seeds),
            "frame_keys": list(batch.frames) if self._image_loss_weight > 0.0 else None,
        }
        grad = ("z",) if IMAGE in embeddings else ()
        return self._image.submit(IMAGE, "render", arguments, grad=grad, deadline_s=self._deadline_s)

    def _rendered(self, reply: Reply) -> _Rendered:
        images, own_loss = reply.values["images"], reply.values.get("own_loss")
        if not isinstance(images, TensorRef) or reply.ticket is None:
            raise ProtocolError("image.render: expected a tensor `images` and a ticket, got neither; wrong agent?")
        value = float(own_loss.tensor()) if isinstance(own_loss, TensorRef) else None
        return _Rendered(images, value, reply.ticket, reply.forward_s)

    def _submit_video(
        self, batch: MicroBatch, rendered: _Rendered, embeddings: dict[str, torch.Tensor], scale: float
    ) -> PendingReply:
        """Submit the loss and its backward in one message: the last server of a chain needs nothing in between."""
        arguments = {
            "z": embeddings.get(VIDEO),
            "prompt_keys": list(batch.video_prompts),
            "images": rendered.images,
            "target_keys": list(batch.targets),
            "seeds": list(batch.seeds),
        }
        return self._video.submit(
            VIDEO,
            "loss",
            arguments,
            grad=("z", "images") if VIDEO in embeddings else ("images",),
            output_grads={"loss": torch.tensor(scale)},
            norms=("images",),
            inputs_first=self.pipeline.inputs_first,
            deadline_s=self._deadline_s,
        )

    def _loss_done(self, rendered: _Rendered, reply: Reply) -> _LossDone:
        loss = reply.values["loss"]
        if not isinstance(loss, TensorRef):
            raise ProtocolError("video.loss: expected a scalar tensor `loss`, got none; wrong agent?")
        norm = reply.norms.get("images", 0.0)
        return _LossDone(rendered, float(loss.tensor()), reply.gradients, norm, reply.forward_s, reply.backward_s)

    def _image_output_grads(
        self, rendered: _Rendered, image_gradient: TensorRef | None, scale: float
    ) -> dict[str, torch.Tensor | TensorRef]:
        """Gradients of the image agent's outputs: of O_1 from the video agent, and of its own loss."""
        grads: dict[str, torch.Tensor | TensorRef] = {}
        if image_gradient is not None:
            grads["images"] = image_gradient
        if rendered.own_loss is not None:
            grads["own_loss"] = torch.tensor(scale * self._image_loss_weight)
        return grads

    def _submit_image_backward(self, loss_done: _LossDone, scale: float) -> PendingReply | None:
        grads = self._image_output_grads(loss_done.rendered, loss_done.gradients.get("images"), scale)
        if not grads:
            loss_done.rendered.ticket.drop()
            return None
        return self._image.submit_backward(loss_done.rendered.ticket, grads, deadline_s=self._deadline_s)

    def _ended(
        self, loss_done: _LossDone, pending: PendingReply | None, embeddings: dict[str, torch.Tensor], watch: Stopwatch
    ) -> MicroBatchResult:
        reply = None if pending is None else pending.result()
        found = {IMAGE: {} if reply is None else reply.gradients, VIDEO: loss_done.gradients}
        gradients = {
            name: found[name]["z"].tensor() if "z" in found[name] else torch.zeros_like(z)
            for name, z in embeddings.items()
        }
        compute_s = {
            "image_forward": loss_done.rendered.forward_s,
            "video_forward": loss_done.forward_s,
            "video_backward": loss_done.backward_s,
            "image_backward": 0.0 if reply is None else reply.backward_s,
        }
        for part, spent_s in compute_s.items():
            watch.add(part, spent_s)
        faults.reach("mapped")
        return MicroBatchResult(
            loss_done.loss, loss_done.rendered.own_loss, gradients, loss_done.image_gradient_norm, compute_s
        )


def _firsts(queue: Sequence[tuple[object, PendingReply | None]]) -> list[PendingReply]:
    pending = queue[0][1] if queue else None
    return [] if pending is None else [pending]
