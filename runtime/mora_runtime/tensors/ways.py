"""How many tensors and bytes a process has sent by each way, for its heartbeats, PONG and the trace."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Ways:
    """Tensors that this process has sent, by their way to the receiver. A tensor that it passes on counts as shared."""

    num_inline: int = 0  # inside the message
    num_shared: int = 0  # in shared memory
    num_device: int = 0  # in memory of the GPU
    num_staged: int = 0  # from the GPU through shared memory
    num_pool_full: int = 0  # of the staged ones, those that found no room in the device pool
    inline_nbytes: int = 0
    shared_nbytes: int = 0
    device_nbytes: int = 0
    staged_nbytes: int = 0

    def count_inline(self, nbytes: int) -> None:
        """Count a tensor inside a message."""
        self.num_inline += 1
        self.inline_nbytes += nbytes

    def count_shared(self, nbytes: int) -> None:
        """Count a tensor in shared memory."""
        self.num_shared += 1
        self.shared_nbytes += nbytes

    def count_device(self, nbytes: int) -> None:
        """Count a tensor in memory of the GPU."""
        self.num_device += 1
        self.device_nbytes += nbytes

    def count_staged(self, nbytes: int) -> None:
        """Count a tensor from the GPU through shared memory."""
        self.num_staged += 1
        self.staged_nbytes += nbytes
