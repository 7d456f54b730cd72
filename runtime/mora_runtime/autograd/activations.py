"""How much memory the graph of one forward keeps until its backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mora_runtime.process import faults


class ActivationMeter:
    """Bytes of all tensors that autograd saves while the meter runs: each storage once, without parameters."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}

    @property
    def nbytes(self) -> int:
        """Bytes saved so far."""
        return sum(self._sizes.values())

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        faults.reach("mid_forward")
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor may be the output of the node that saves it: a cycle that is never freed

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count what autograd saves inside the block."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack):
            yield


def _unpack(tensor: torch.Tensor) -> torch.Tensor:
    faults.reach("mid_backward")
    return tensor
