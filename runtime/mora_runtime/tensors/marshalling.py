"""Conversion between the values of agents and callers and the values in messages."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from mora_runtime.errors import BadArgument
from mora_runtime.limits import INLINE_TENSOR_NBYTES, MAX_INLINE_NBYTES, MAX_NUM_TENSORS
from mora_runtime.tensors.tensor_store import InlineRef, Peer, TensorRef, TensorStore
from mora_runtime.trace import tracing
from mora_runtime.wire.messages import InlineTensor, WireDeviceTensor, WireTensor
from mora_runtime.wire.tensor_meta import DTYPE_CODES, meta_of

_PLAIN = frozenset((type(None), bool, int, float, str))


def to_wire(
    store: TensorStore, peer: Peer, values: dict[str, Any], *, onward: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Replace every tensor and reference by a lease for `peer`, small tensors by their bytes.

    Args:
        onward: by name, the identity of the process that will read a tensor which the peer only passes on.

    Raises:
        BadArgument: a value that cannot be sent, or more than 64 tensors.
        DeadlineExceeded, DeviceFailed: the device did not deliver a tensor.
    """
    outgoing = _Outgoing(store, peer, onward or {})
    try:
        try:
            return {name: outgoing.value(name, value) for name, value in values.items()}
        finally:
            store.finish_copies()  # also after an error: a copy must not run into a slot that is used again
    except BaseException:
        peer.take_back(outgoing.leases)  # nothing is sent, so the peer will not release them
        raise


class _Outgoing:
    """Converts the values of one outgoing message."""

    def __init__(self, store: TensorStore, peer: Peer, onward: Mapping[str, str]) -> None:
        self.leases: list[int] = []
        self._store = store
        self._peer = peer
        self._onward = onward
        self._num_tensors = 0
        self._inline_nbytes = 0

    def value(self, name: str, value: Any) -> Any:
        """Convert `value` to its wire value."""
        if type(value) in _PLAIN:
            return value
        if isinstance(value, torch.Tensor | TensorRef):
            self._num_tensors += 1
            if self._num_tensors > MAX_NUM_TENSORS:
                raise BadArgument(f"more than {MAX_NUM_TENSORS} tensors in one message; send them in several")
            inline = self._inline(value)
            if inline is None:
                return self._leased(value, self._onward.get(name))
            self._store.ways.count_inline(len(inline.data))
            if tracing.active is not None:
                tracing.active.move("inline", len(inline.data), self._store.identity, self._peer.name)
            return inline
        if isinstance(value, list | tuple):
            return [self.value(name, item) for item in value]
        if isinstance(value, bool | int | float | str):
            return value  # of a subclass, such as numpy's float64
        kind = type(value).__name__
        raise BadArgument(f"`{name}`: a {kind} cannot be sent; expected numbers, text, lists and tensors")

    def _inline(self, value: torch.Tensor | TensorRef) -> InlineTensor | None:
        """The tensor's bytes, or None if they are too many for the frame."""
        if isinstance(value, InlineRef):
            return value.wire if self._has_room(value.nbytes) else None
        if isinstance(value, TensorRef):
            return None
        meta = meta_of(value)
        if not self._has_room(meta.nbytes):
            return None
        return InlineTensor(DTYPE_CODES[meta.dtype], meta.shape, _bytes_of(value))

    def _has_room(self, nbytes: int) -> bool:
        if nbytes > INLINE_TENSOR_NBYTES or self._inline_nbytes + nbytes > MAX_INLINE_NBYTES:
            return False
        self._inline_nbytes += nbytes
        return True

    def _leased(self, value: torch.Tensor | TensorRef, reader: str | None) -> WireTensor | WireDeviceTensor:
        exported = self._store.export(self._peer, value, reader=reader)
        self.leases.append(exported.lease)
        return exported


def _bytes_of(tensor: torch.Tensor) -> bytes:
    dense = tensor.detach().cpu().contiguous() if not (tensor.is_cpu and tensor.is_contiguous()) else tensor
    return ctypes.string_at(dense.data_ptr(), dense.nbytes)


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def leases_of(wire: dict[str, Any]) -> list[int]:
    """Leases of all tensors in wire values."""
    return [value.lease for value in _flat(wire.values()) if isinstance(value, WireTensor | WireDeviceTensor)]


def from_wire(store: TensorStore, peer: Peer, values: dict[str, Any]) -> dict[str, Any]:
    """Replace every wire tensor by a reference (or by our own tensor that came back).

    Raises:
        StoreError: one of them is refused; then the leases of all end.
    """
    incoming = _Incoming(store, peer)
    try:
        return {name: incoming.value(value) for name, value in values.items()}
    except BaseException:
        peer.to_release.extend(leases_of(values)[incoming.num_resolved :])
        raise


class _Incoming:
    """Converts the values of one incoming message."""

    def __init__(self, store: TensorStore, peer: Peer) -> None:
        self.num_resolved = 0  # tensors whose leases end with their references
        self._store = store
        self._peer = peer

    def value(self, value: Any) -> Any:
        """Convert a wire value to a local value."""
        if isinstance(value, InlineTensor):
            return InlineRef(value)
        if isinstance(value, WireTensor | WireDeviceTensor):
            resolved = self._store.resolve(self._peer, value)
            self.num_resolved += 1
            return resolved
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value
