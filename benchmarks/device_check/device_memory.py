"""Memory of the device: what is free of it for all processes, and what a call takes of it in this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch
from mora_environment.cost_meter import measured_call, without_weight_gradients

from benchmarks.device_check.seconds import synchronize

_DEADLINE_S = 10.0  # a driver frees the memory of killed processes a moment later
_LOOK_EVERY_S = 0.05  # the driver announces nothing


class FreeMemory:
    """The free memory of a device at the moment of its creation; nothing on the CPU."""

    slack_nbytes = 64 << 20  # what a driver may keep for processes to come

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.empty(1, device=device)  # this process's own context counts from the beginning
        self._at_start = self._free()

    def missing(self) -> tuple[int, float]:
        """The bytes that do not come back, and the seconds until the others did."""
        began_s = time.monotonic()
        while (lost := self._at_start - self._free()) > self.slack_nbytes and time.monotonic() - began_s < _DEADLINE_S:
            time.sleep(_LOOK_EVERY_S)
        return max(0, lost), round(time.monotonic() - began_s, 3)

    def _free(self) -> int:
        return int(torch.cuda.mem_get_info(self._device)[0]) if self._device.type == "cuda" else 0


def call_memory(
    call: Callable[[], torch.Tensor], device: torch.device, *, modules: Iterable[torch.nn.Module]
) -> dict[str, int]:
    """Run a call and its backward pass; returns the bytes that `CallCost` plans, as they really are.

    On a GPU torch's allocator counts them. On the CPU, which has no such counter, the plan's own meter counts the real
    tensors.

    Args:
        modules: their gradients do not count.
    """
    if device.type != "cuda":
        cost = measured_call(call, modules=modules, with_backward=True)
        return {name: getattr(cost, name) for name in ("forward_nbytes", "graph_nbytes", "backward_nbytes")}
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    output = call()
    counted = {
        "forward_nbytes": torch.cuda.max_memory_allocated(device) - before,
        "graph_nbytes": torch.cuda.memory_allocated(device) - before,
    }
    torch.cuda.reset_peak_memory_stats(device)
    with without_weight_gradients(modules):
        output.backward(torch.ones_like(output))  # type: ignore[no-untyped-call]
    synchronize(device)
    return {**counted, "backward_nbytes": torch.cuda.max_memory_allocated(device) - before}
