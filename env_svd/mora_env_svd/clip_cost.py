"""What an agent that makes clips costs: its calls, counted on the meta device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from mora_environment.cost import AgentCost, CostRequest, in_sequence
from mora_environment.cost_meter import measured_call, with_trained_counts
from mora_training.trainable import select_trainable
from torch import Tensor

META = torch.device("meta")


class ClipCost(ABC):
    """The calls of an agent, with models and inputs that have shapes but no values.

    Args:
        model: the one that trains.
        width: of a row of z.
        picture: height and width in pixels.
        gradient_steps, num_inference_steps: the options.
        least_steps: of sampling.
    """

    def __init__(
        self,
        request: CostRequest,
        model: Any,
        *,
        width: int,
        picture: tuple[int, int],
        gradient_steps: int | str | None,
        num_inference_steps: int,
        least_steps: int = 1,
    ) -> None:
        self._request = request
        self._width = width
        self._picture = picture
        self._num_inference_steps = num_inference_steps
        self.model = model
        self.num_gradient_steps = num_inference_steps if isinstance(gradient_steps, str) else gradient_steps or 0
        # the first steps of `forward` have no gradient and are all alike, so only the last of them runs here
        self.num_measured_steps = min(max(self.num_gradient_steps + 1, least_steps), num_inference_steps)
        with META:  # where adapters are made
            select_trainable(model, request.trainable)

    def cost(self) -> AgentCost:
        """What the agent costs."""
        request = self._request
        target, given, step, decoding = map(
            _without_gradient, (self.encode_target, self.encode_given, self.sampling_step, self.decode)
        )
        call = measured_call(self.call, modules=[self.model], with_backward=request.trains or request.passes_gradient)
        num_skipped = 0 if request.has_loss else self._num_inference_steps - self.num_measured_steps
        skipped = step.repeated(num_skipped).forward * request.batch_size
        call = call.model_copy(update={"forward": call.forward + skipped})
        sample = in_sequence(given, step.repeated(self._num_inference_steps), decoding)
        return with_trained_counts(AgentCost(prepare=target, step=call, sample=sample), self.model)

    def call(self) -> Tensor:
        """`loss`, or `forward` where the agent is inside the chain."""
        images = self.pictures(self._request.batch_size).requires_grad_(self._request.passes_gradient)
        outputs = []
        if self._request.has_loss or self._request.adds_loss:
            outputs.append(self.loss(images))
        if not self._request.has_loss:
            outputs += [self.frames(image).sum() for image in images.split(1)]
        return torch.stack(outputs).sum()

    @abstractmethod
    def encode_target(self) -> Tensor:
        """A target clip becomes what is stored of it."""

    @abstractmethod
    def encode_given(self) -> Tensor:
        """The given pictures of a sample become its condition."""

    @abstractmethod
    def sampling_step(self) -> Tensor:
        """One step of a sample, with guidance."""

    @abstractmethod
    def decode(self) -> Tensor:
        """A sample's latents become frames."""

    @abstractmethod
    def loss(self, images: Tensor) -> Tensor:
        """Of first frames (B, 3, H, W)."""

    @abstractmethod
    def frames(self, image: Tensor) -> Tensor:
        """Of one sample from its first frame (1, 3, H, W): `num_measured_steps` steps, and the decoder."""

    def pictures(self, number: int) -> Tensor:
        return sized(number, 3, *self._picture)

    def z(self) -> Tensor | None:
        rows = self._request.num_rows
        return sized(rows, self._width).requires_grad_(self._request.trains) if rows else None


def _without_gradient(call: Callable[[], Tensor]) -> Any:
    return measured_call(call, with_backward=False)


def sized(*shape: int) -> Tensor:
    """A tensor that has a shape but no values."""
    return torch.empty(shape, device=META)
