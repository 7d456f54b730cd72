"""The device of a server: made the current one before anything loads, and examined after an error."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mora_runtime.errors import DeviceLost
from mora_runtime.rpc.server_settings import ServerSettings
from mora_runtime.trace import tracing

# A kernel that failed leaves unknown values behind, and a communicator that failed cannot be used again. Older versions
# of torch do not have all of these classes.
_FATAL: tuple[type[BaseException], ...] = tuple(
    kind
    for kind in (
        getattr(torch, "AcceleratorError", None),
        getattr(torch.distributed, "DistBackendError", None),
    )
    if kind is not None
)


class ServerDevice:
    """The device that a server's agents compute on.

    Args:
        torch_device: a GPU or the CPU; nothing is examined on the CPU.
        ends_when_out_of_memory: True for a server that trains: it continues from the checkpoint with empty memory.
            False for one that only answers: a request that is too large fails alone.
    """

    def __init__(self, torch_device: torch.device, *, ends_when_out_of_memory: bool) -> None:
        self.torch_device = torch_device
        self._ends_when_out_of_memory = ends_when_out_of_memory

    @classmethod
    def of(cls, settings: ServerSettings) -> ServerDevice:
        """Return the device that a server's settings name."""
        return cls(torch.device(settings.device), ends_when_out_of_memory=settings.ends_when_out_of_memory)

    def make_current(self) -> None:
        """Make a GPU the current one of this process, for libraries that create tensors without naming a device."""
        if self.torch_device.type == "cuda" and self.torch_device.index is not None:
            torch.cuda.set_device(self.torch_device)

    def wait_if_traced(self) -> None:
        """Wait for a GPU at the end of a traced span, which would otherwise end when its work is queued."""
        if self.torch_device.type == "cuda" and tracing.active is not None:
            torch.cuda.synchronize(self.torch_device)

    def require_working(self, error: BaseException) -> None:
        """Find out whether the device still works after `error`, which came from an agent.

        CUDA raises an error of a kernel (an illegal access, a memory fault, a lost link) again at every later call, so
        a server in this state can answer nothing any more.

        Raises:
            DeviceLost: this process must end; a new one may work.
        """
        if self.torch_device.type != "cuda":
            return
        fault = self._fault(error)
        if fault is not None:
            raise DeviceLost(f"lost its device {self.torch_device}: {_shown(fault)}") from error

    def _fault(self, error: BaseException) -> BaseException | None:
        for cause in _causes(error):
            if isinstance(cause, _FATAL):
                return cause
            if isinstance(cause, torch.cuda.OutOfMemoryError) and self._ends_when_out_of_memory:
                return cause
        try:
            torch.cuda.synchronize(self.torch_device)
        except RuntimeError as found:
            return found
        return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and those that it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
