"""Makes each sample of a batch bit-identical to the same sample alone.

A library chooses a matrix kernel by the number of rows. Measured on CPUs (MKL, oneDNN): the last bits of convolutions
and of linear layers over a batch of vectors (time and pooled embeddings, a few rows) depend on the batch size; those
of linear layers over tokens (hundreds of rows), attention and norms do not. So the first kind runs sample by sample,
and the second, which is nearly all the work, in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class SampleBySample(TorchFunctionMode):
    """While active, convolutions and linear layers over single vectors process each sample of a batch separately."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        if function is torch.nn.functional.linear:
            inputs, *rest = arguments
            if inputs.ndim == 2 and inputs.shape[0] > 1:
                return torch.cat([function(row, *rest, **options) for row in inputs.split(1)])
        elif function is torch.conv2d:
            inputs, *rest = arguments
            if inputs.shape[0] > 1:
                return torch.cat([function(sample, *rest, **options) for sample in inputs.split(1)])
        return function(*arguments, **options)
