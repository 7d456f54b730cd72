"""Proof that training changes what it should: which trained tensors differ from those before the first step.

Fingerprints are compared instead of copies, because a copy of the master weights would need as much memory again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

_NUM_REPORTS = 2  # a LoRA's A changes only in the second step where its B starts at zero and nothing decays
_CHUNK_SIZE = 1 << 20  # elements whose bits are widened at once
_STRIDE = 6364136223846793005  # odd, so that no power of it is zero modulo 2^64


class ChangeProof:
    """Compares trained tensors with those at its start, after each of the first steps.

    Args:
        pieces: this rank's piece of every trained tensor, float32, flat; empty where other ranks have the tensor.
    """

    def __init__(self, pieces: Sequence[torch.Tensor]) -> None:
        self._before = _fingerprints(pieces)
        self._num_left = _NUM_REPORTS

    def report(self, pieces: Sequence[torch.Tensor]) -> dict[str, int]:
        """Count the tensors that differ now, over all ranks (a collective).

        Returns:
            `num_changed` and `num_trained`; empty once all have changed, or after the second report.
        """
        if self._num_left == 0:
            return {}
        changed = (_fingerprints(pieces) != self._before).to(torch.int32)
        dist.all_reduce(changed, op=dist.ReduceOp.MAX)
        num_changed = int(changed.sum().item())
        self._num_left = 0 if num_changed == len(changed) else self._num_left - 1
        return {"num_changed": num_changed, "num_trained": len(changed)}


@torch.no_grad()
def _fingerprints(pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """A number for the bits of each tensor, int64. A change of one element always changes it."""
    size = min(_CHUNK_SIZE, max(piece.numel() for piece in pieces))
    # a generator of its own: the global one belongs to training
    factors = torch.randint(-(1 << 62), 1 << 62, (size,), generator=torch.Generator().manual_seed(0)) | 1
    factors = factors.to(pieces[0].device)
    return torch.stack([_fingerprint(piece, factors) for piece in pieces])


def _fingerprint(piece: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.int64, device=piece.device)
    for chunk in torch.split(piece.view(torch.int32), len(factors) or 1):
        total = total * _STRIDE + (chunk.to(torch.int64) * factors[: len(chunk)]).sum()
    return total
