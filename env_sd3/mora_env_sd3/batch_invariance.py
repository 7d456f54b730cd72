"""Batches whose samples get the very bits that they would get alone.

Which matrix kernel a library takes depends on the number of rows. Measured on CPUs (MKL, oneDNN): the linear layers
that see a batch of vectors (time and pooled embeddings, a few rows) and the convolutions change their last bits with
the size of the batch; those over tokens (hundreds of rows), attention and norms do not. So the first kind runs sample
by sample here, and the second, which is nearly all the work, in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class SampleBySample(TorchFunctionMode):
    """While active, convolutions and linear layers over single vectors treat every sample of a batch on its own."""

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
