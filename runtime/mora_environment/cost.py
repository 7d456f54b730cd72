"""What an agent costs in a chain: memory of activations and floating-point operations. It needs no torch.

The launcher plans a job with it before a model is loaded. Static memory (weights, gradients, optimizer) follows from
`Component` and is not part of it.
"""

from __future__ import annotations

from mora_runtime.schema import PositiveInt, Settings
from mora_training.training_settings import TrainableSettings
from pydantic import Field


class CostRequest(Settings):
    """The work of one agent whose cost is asked."""

    batch_size: PositiveInt = 1  # samples in one micro-batch
    has_loss: bool = False  # its method `loss` ends the chain; else `forward`
    adds_loss: bool = False  # adds its own loss from inside the chain
    trainable: TrainableSettings = TrainableSettings()  # which of its weights have gradients
    passes_gradient: bool = True  # an agent before it trains, so its input has a gradient
    num_rows: int = Field(default=4, ge=0)  # rows of its modulation embedding

    @property
    def trains(self) -> bool:
        """Whether some of its weights have gradients."""
        return self.trainable.scope != "none"


class Work(Settings):
    """What a device does in one call; multiply-adds count as two operations."""

    matmul: int = Field(default=0, ge=0)  # in bfloat16 or float16
    matmul_float32: int = Field(default=0, ge=0)
    attention: int = Field(default=0, ge=0)  # in bfloat16 or float16
    attention_float32: int = Field(default=0, ge=0)
    convolution: int = Field(default=0, ge=0)  # in bfloat16 or float16
    convolution_float32: int = Field(default=0, ge=0)
    moved_nbytes: int = Field(default=0, ge=0)  # read and written by all other operations
    num_operations: int = Field(default=0, ge=0)  # each is at least one kernel launch

    def __add__(self, other: Work) -> Work:
        return Work(**{name: getattr(self, name) + getattr(other, name) for name in Work.model_fields})

    def __mul__(self, times: int) -> Work:
        return Work(**{name: times * getattr(self, name) for name in Work.model_fields})


class CallCost(Settings):
    """One call: its work, and the memory that it needs besides weights, gradients and optimizer."""

    forward: Work = Work()
    backward: Work = Work()
    forward_nbytes: int = Field(default=0, ge=0)  # the most at one time in the forward pass
    graph_nbytes: int = Field(default=0, ge=0)  # kept between forward and backward pass
    backward_nbytes: int = Field(default=0, ge=0)  # the most at one time in the backward pass, the graph included

    @property
    def peak_nbytes(self) -> int:
        """The most at one time in both passes."""
        return max(self.forward_nbytes, self.graph_nbytes, self.backward_nbytes)

    def repeated(self, times: int) -> CallCost:
        """The cost of `times` such calls without gradient, one after the other."""
        return CallCost(forward=self.forward * times, forward_nbytes=self.forward_nbytes if times else 0)


def in_sequence(*calls: CallCost) -> CallCost:
    """The cost of calls without gradient, one after the other."""
    work = sum((call.forward for call in calls), start=Work())
    return CallCost(forward=work, forward_nbytes=max(call.forward_nbytes for call in calls))


class AgentCost(Settings):
    """What one agent costs in each phase of a job; a phase that it does not have costs nothing."""

    num_trained: int = Field(default=0, ge=0)  # parameters with a gradient
    num_largest: int = Field(default=0, ge=0)  # elements of the largest tensor with a gradient
    prepare: CallCost = CallCost()  # one target, encoded before the first step
    step: CallCost = CallCost()  # one micro-batch
    sample: CallCost = CallCost()  # one sample before or after training, without gradient
