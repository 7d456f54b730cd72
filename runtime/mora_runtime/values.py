"""Values of calls and results: translating between what agents and callers hold and what a message carries."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch

from mora_runtime.errors import BadArgument
from mora_runtime.limits import MAX_NUM_TENSORS
from mora_runtime.messages import WireTensor
from mora_runtime.plane import Peer, TensorPlane, TensorRef


def to_wire(plane: TensorPlane, peer: Peer, values: dict[str, Any]) -> dict[str, Any]:
    """Replace every tensor and reference by a lease for `peer`.

    Raises:
        BadArgument: a value that may not cross, or more than 64 tensors.
    """
    num_tensors = sum(isinstance(v, torch.Tensor | TensorRef) for v in _flat(values.values()))
    if num_tensors > MAX_NUM_TENSORS:
        raise BadArgument(f"{num_tensors} tensors in one message, expected at most {MAX_NUM_TENSORS}")
    leases: list[int] = []
    try:
        return {name: _out(plane, peer, name, value, leases) for name, value in values.items()}
    except BaseException:
        peer.take_back(leases)  # nothing will be sent, so nobody will give them back
        raise


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def leases_of(wire: dict[str, Any]) -> list[int]:
    """Leases of all tensors in values that `to_wire` made or that a peer sent."""
    return [value.lease for value in _flat(wire.values()) if isinstance(value, WireTensor)]


def _out(plane: TensorPlane, peer: Peer, name: str, value: Any, leases: list[int]) -> Any:
    if isinstance(value, torch.Tensor | TensorRef):
        exported = plane.export(peer, value)
        leases.append(exported.lease)
        return exported
    if isinstance(value, list | tuple):
        return [_out(plane, peer, name, item, leases) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise BadArgument(f"`{name}`: a {type(value).__name__} may not cross; expected numbers, text, lists and tensors")


def from_wire(plane: TensorPlane, peer: Peer, values: dict[str, Any]) -> dict[str, Any]:
    """Replace every wire tensor by a reference (or by our own tensor that came back).

    Raises:
        PlaneError: one of them is refused; the leases of all are over then.
    """
    unresolved = deque(leases_of(values))
    try:
        return {name: _in(plane, peer, value, unresolved) for name, value in values.items()}
    except BaseException:
        peer.to_release.extend(unresolved)
        raise


def _in(plane: TensorPlane, peer: Peer, value: Any, unresolved: deque[int]) -> Any:
    if isinstance(value, WireTensor):
        resolved = plane.resolve(peer, value)
        unresolved.popleft()
        return resolved
    if isinstance(value, list):
        return [_in(plane, peer, item, unresolved) for item in value]
    return value
