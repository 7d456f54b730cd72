"""How many tensors a process has sent by each way, for its heartbeats, PONG and the trace."""

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
