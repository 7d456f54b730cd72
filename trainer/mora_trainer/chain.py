"""The differentiable chain prompt -> image agent -> video agent -> loss, and its gradient, over two servers.

Driven by `JointStep`; owns nothing but the two clients. The image O_1 and its gradient pass from server to server by
reference: the coordinator never copies them. Gradients of model parameters stay in the servers; only z_i and dL/dz_i
(kilobytes) come here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from mora_runtime import Client, PendingReply, TensorRef, Ticket
from mora_runtime.errors import ProtocolError

IMAGE = "image"
VIDEO = "video"
AGENTS = (IMAGE, VIDEO)  # the order of all sums


@dataclass(frozen=True)
class MicroBatch:
    """Samples that go through the chain together. Keys name what `encode` and `store_target` left in the servers."""

    image_prompts: tuple[str, ...]
    video_prompts: tuple[str, ...]
    targets: tuple[str, ...]
    frames: tuple[str, ...]  # first frames of the targets, in the image server; used by the image agent's own loss
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class MicroBatchResult:
    """What comes back of one micro-batch."""

    loss: float
    image_loss: float | None
    gradients: dict[str, torch.Tensor]  # dL/dz_i by agent, (rows, d_i) float32; empty without modulation
    image_gradient_norm: float  # ||dL/dO_1||_2


@dataclass
class Stopwatch:
    """Seconds spent per named part of a step."""

    spent_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time inside the block to `part`."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s[part] = self.spent_s.get(part, 0.0) + time.perf_counter() - started_s


@dataclass(frozen=True)
class _Rendered:
    """An image forward that has come back: O_1 by reference and the ticket of its graph."""

    images: TensorRef  # (B, 3, H, W) in [-1, 1]
    own_loss: float | None
    ticket: Ticket


class RemoteChain:
    """Forward and backward of micro-batches over an image and a video server.

    Args:
        image, video: connected clients.
        image_loss_weight: weight of the image agent's own loss (0 = the paper: losses only on the last output).
        deadline_s: for each call.
    """

    def __init__(self, image: Client, video: Client, *, image_loss_weight: float, deadline_s: float) -> None:
        self._image = image
        self._video = video
        self._image_loss_weight = image_loss_weight
        self._deadline_s = deadline_s

    def run(
        self, batches: Sequence[MicroBatch], embeddings: dict[str, torch.Tensor], watch: Stopwatch
    ) -> Iterator[MicroBatchResult]:
        """Forward and backward of every micro-batch, gradients of their mean loss, results in order.

        The image server renders micro-batch k + 1 while the video server works on k; each server still sees its own
        micro-batches in order, so the sums are the same to the bit as without the overlap.
        """
        scale = 1.0 / len(batches)
        pending = self._submit_image(batches[0], embeddings)
        for number, batch in enumerate(batches):
            rendered = self._await_image(pending, watch)
            if number + 1 < len(batches):
                pending = self._submit_image(batches[number + 1], embeddings)
            yield self._finish(batch, rendered, embeddings, scale, watch)

    def _submit_image(self, batch: MicroBatch, embeddings: dict[str, torch.Tensor]) -> PendingReply:
        arguments = {
            "z": embeddings.get(IMAGE),
            "prompt_keys": list(batch.image_prompts),
            "seeds": list(batch.seeds),
            "frame_keys": list(batch.frames) if self._image_loss_weight > 0.0 else None,
        }
        grad = ("z",) if IMAGE in embeddings else ()
        return self._image.submit(IMAGE, "render", arguments, grad=grad, deadline_s=self._deadline_s)

    def _await_image(self, pending: PendingReply, watch: Stopwatch) -> _Rendered:
        with watch.measure("image_forward"):
            reply = pending.result()
        images, own_loss = reply.values["images"], reply.values.get("own_loss")
        if not isinstance(images, TensorRef) or reply.ticket is None:
            raise ProtocolError("image.render: expected a tensor `images` and a ticket, got neither; wrong agent?")
        value = float(own_loss.tensor()) if isinstance(own_loss, TensorRef) else None
        return _Rendered(images, value, reply.ticket)

    def _finish(
        self,
        batch: MicroBatch,
        rendered: _Rendered,
        embeddings: dict[str, torch.Tensor],
        scale: float,
        watch: Stopwatch,
    ) -> MicroBatchResult:
        arguments = {
            "z": embeddings.get(VIDEO),
            "prompt_keys": list(batch.video_prompts),
            "images": rendered.images,
            "target_keys": list(batch.targets),
            "seeds": list(batch.seeds),
        }
        grad = ("z", "images") if VIDEO in embeddings else ("images",)
        with watch.measure("video_forward"):
            reply = self._video.call(VIDEO, "loss", arguments, grad=grad, deadline_s=self._deadline_s)
        loss = reply.values["loss"]
        if not isinstance(loss, TensorRef) or reply.ticket is None:
            raise ProtocolError("video.loss: expected a scalar tensor `loss` and a ticket, got neither; wrong agent?")
        value = float(loss.tensor())
        with watch.measure("video_backward"):
            seed = {"loss": torch.tensor(scale)}
            video_gradients = self._video.backward(reply.ticket, seed, deadline_s=self._deadline_s)
        image_gradients = self._backward_image(rendered, video_gradients.get("images"), scale, watch)
        gradients: dict[str, torch.Tensor] = {}
        for name, found in ((IMAGE, image_gradients), (VIDEO, video_gradients)):
            if name in embeddings:
                gradients[name] = found["z"].tensor() if "z" in found else torch.zeros_like(embeddings[name])
        norm = float(video_gradients["images"].tensor().float().norm()) if "images" in video_gradients else 0.0
        return MicroBatchResult(value, rendered.own_loss, gradients, norm)

    def _backward_image(
        self, rendered: _Rendered, image_gradient: TensorRef | None, scale: float, watch: Stopwatch
    ) -> dict[str, TensorRef]:
        grads: dict[str, torch.Tensor | TensorRef] = {}
        if image_gradient is not None:
            grads["images"] = image_gradient
        if rendered.own_loss is not None:
            grads["own_loss"] = torch.tensor(scale * self._image_loss_weight)
        if not grads:
            rendered.ticket.drop()
            return {}
        with watch.measure("image_backward"):
            return self._image.backward(rendered.ticket, grads, deadline_s=self._deadline_s)
