"""Collecting what the ranks of a group have in parts: rank 0 gets whole tensors in host memory, piece by piece.

`ShardedOptimizer` uses it for the moving average in checkpoints. Ranks other than 0 only send, so the whole never
exists there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist

PIECES_NBYTES = 64 << 20  # of all ranks together, on the device of rank 0, while they are copied to host memory


@torch.no_grad()
def gather_on_first_rank(
    partition: torch.Tensor, shapes: Sequence[torch.Size], *, pieces_nbytes: int = PIECES_NBYTES
) -> list[torch.Tensor] | None:
    """Cut the concatenation of all ranks' partitions into tensors of these shapes (a collective).

    Args:
        partition: flat, of the same size and dtype on every rank of the default group.
        shapes: of the wanted tensors, in the order of the concatenation; what follows them there is padding.

    Returns:
        Tensors in host memory, each with memory of its own; None on ranks other than 0.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    size = partition.numel()
    piece_size = max(1, pieces_nbytes // (partition.element_size() * world_size))
    wanted = [torch.empty(shape, dtype=partition.dtype) for shape in shapes] if rank == 0 else None
    for start in range(0, size, piece_size):
        piece = partition[start : start + piece_size]
        pieces = _gathered(piece, rank, world_size)
        for owner, part in enumerate(pieces):
            _copy_into(wanted or [], owner * size + start, part)
    return wanted


def _gathered(piece: torch.Tensor, rank: int, world_size: int) -> list[torch.Tensor]:
    """Every rank's piece on rank 0, an empty list on the others."""
    if world_size == 1:
        return [piece]
    pieces = [torch.empty_like(piece) for _ in range(world_size)] if rank == 0 else []
    dist.gather(piece.contiguous(), pieces or None, dst=0)
    return pieces


def _copy_into(wanted: Sequence[torch.Tensor], start: int, part: torch.Tensor) -> None:
    """Copy elements `start` and following of the concatenation to where they belong."""
    end = start + part.numel()
    for offset, tensor in _offsets(wanted):
        first, last = max(start, offset), min(end, offset + tensor.numel())
        if first < last:
            tensor.view(-1)[first - offset : last - offset].copy_(part[first - start : last - start])


def _offsets(tensors: Sequence[torch.Tensor]) -> Iterator[tuple[int, torch.Tensor]]:
    offset = 0
    for tensor in tensors:
        yield offset, tensor
        offset += tensor.numel()
