"""The kernels that a server of the job would use, for measurements outside of a server."""

from __future__ import annotations

import contextlib

from mora_runtime.rpc.gpu_kernels import choose_kernels
from mora_runtime.rpc.server_settings import ServerSettings

from benchmarks.device_check.request import Request


def server_kernels(request: Request) -> contextlib.AbstractContextManager[object]:
    """Use the kernels of the request's agent until the returned context ends."""
    settings = ServerSettings(role="check.0", name="check", run_dir="", device=request.device, **request.kernels)
    return choose_kernels(settings)
