"""Tensors as numpy arrays, for callers that pass images on and need not know torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mora_runtime.errors import ProtocolError
from mora_runtime.tensors.tensor_store import TensorRef

Pixels = npt.NDArray[np.uint8]


def to_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    """Make a tensor over the array's memory (copied if read-only or not dense), to be sent as an argument."""
    dense = np.ascontiguousarray(array)
    return torch.from_numpy(dense if dense.flags.writeable else dense.copy())


def to_pixels(value: object, what: str) -> Pixels:
    """Copy a uint8 tensor of a reply into the caller's own array; the lease on the tensor ends.

    Raises:
        ProtocolError: the value is not a uint8 tensor; `what` names it in the text.
    """
    tensor = value.tensor() if isinstance(value, TensorRef) else value
    if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.uint8:
        raise ProtocolError(f"{what}: expected a uint8 tensor, got {type(value).__name__}")
    return np.array(tensor.cpu().numpy(), dtype=np.uint8)
