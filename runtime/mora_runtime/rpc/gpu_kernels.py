"""Which kernels torch uses on a GPU, and how exact they are; set once for a server process. The CPU stays as it is.

- Attention: the first kernel of `ServerSettings.attention` that can compute a call does so. Before torch 2.6 the
  kernels cannot be ordered, so torch chooses among those that are named.
- Convolutions: cuDNN measures its algorithms for each new shape (`cudnn_benchmark`) in servers that train, because
  their shapes stay the same. In servers of requests each new size would cost seconds.
- TF32, which rounds float32 inputs to 10 bits of mantissa: torch's default, written down here, is to use it in
  convolutions and not in matrix products.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mora_runtime.rpc.server_settings import AttentionKernel, ServerSettings

_CAN_ORDER = "set_priority" in inspect.signature(sdpa_kernel).parameters


def choose_kernels(settings: ServerSettings) -> contextlib.AbstractContextManager[object]:
    """Use the settings' kernels until the returned context ends.

    torch's choice holds for the whole process, the threads of backwards included. Call it once, before agents load.
    """
    if torch.device(settings.device).type != "cuda":
        return contextlib.nullcontext()
    torch.backends.cudnn.benchmark = settings.cudnn_benchmark
    torch.backends.cudnn.allow_tf32 = settings.tf32 in ("convolutions", "all")
    torch.set_float32_matmul_precision("high" if settings.tf32 == "all" else "highest")
    kernels = _known(settings.attention)
    return sdpa_kernel(kernels, set_priority=True) if _CAN_ORDER else sdpa_kernel(kernels)


def _known(names: Sequence[AttentionKernel]) -> list[SDPBackend]:
    """The kernels of this version of torch; older ones have no attention of cuDNN."""
    found = [getattr(SDPBackend, f"{name.upper()}_ATTENTION" if name != "math" else "MATH", None) for name in names]
    return [kernel for kernel in found if kernel is not None] or [SDPBackend.MATH]
