"""Mora's tensor store as a transport of Ray Direct Transport: CPU tensors between actors of one node, without copies.

    from mora_transport import register
    register()                                                # in the driver, before it creates the actors

    @ray.remote(enable_tensor_transport=True)
    class Source:
        @ray.method(tensor_transport="mora")
        def make(self) -> torch.Tensor: ...

Ray frees an object when its last reference is gone, but it does not know about tensors that receivers still use. The
exchange does: it uses a slot again only after Ray has freed the object and every receiver has dropped its views.

Ray's interface for transports is alpha; this file was written for Ray 2.60.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from mora_runtime.errors import BoundsError, TransportError
from ray.experimental import register_tensor_transport
from ray.experimental.rdt.tensor_transport_manager import (
    CommunicatorMetadata,
    TensorTransportManager,
    TensorTransportMetadata,
)
from tensor_exchange import TensorExchange

NAME = "MORA"
ARENA_NBYTES = 4 << 30  # of one actor's tensors; allocated on demand
SPILL_NBYTES = 1 << 30
FETCH_DEADLINE_S = 30.0  # shorter than the 60 s after which Ray aborts a transfer

_exchange: TensorExchange | None = None
_opening = threading.Lock()


def exchange() -> TensorExchange:
    """The exchange of this process, opened on first use."""
    global _exchange
    with _opening:
        if _exchange is None:
            _exchange = TensorExchange(arena_nbytes=ARENA_NBYTES, spill_nbytes=SPILL_NBYTES)
        return _exchange


def empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Make an uninitialised tensor in shared memory; an actor that returns it copies nothing."""
    return exchange().empty(shape, dtype)


def register() -> None:
    """Make `tensor_transport="mora"` known to Ray."""
    register_tensor_transport(NAME, ["cpu"], MoraTransport, torch.Tensor)


@dataclass
class PlacedTensors(TensorTransportMetadata):
    """What a receiver needs to fetch the tensors of one object."""

    address: str = ""  # of the owner's exchange
    node_id: str = ""


class MoraTransport(TensorTransportManager):
    """One instance for each process; only the receiver acts in a transfer."""

    @property
    def tensor_transport_backend(self) -> str:
        """The name that `@ray.method(tensor_transport=...)` takes."""
        return NAME

    @staticmethod
    def is_one_sided() -> bool:
        """The owner's code takes no part in a transfer: a thread of the exchange answers."""
        return True

    @staticmethod
    def can_abort_transport() -> bool:
        """A fetch has a deadline and leaves neither side blocked, so Ray need not kill the actors."""
        return True

    def actor_has_tensor_transport(self, actor: Any) -> bool:
        """Every actor on Linux has shared memory."""
        return True

    def extract_tensor_transport_metadata(self, obj_id: str, rdt_object: list[torch.Tensor]) -> PlacedTensors:
        """Place the tensors that an actor's method has returned; those made with `empty` are placed already.

        Raises:
            BoundsError: a tensor that is not in CPU memory, or of a dtype that the store does not carry.
            ArenaFull: no slot came free in time.
        """
        for tensor in rdt_object:
            if tensor.device.type != "cpu":
                raise BoundsError(
                    f'tensor_transport="mora" carries tensors in CPU memory, object {obj_id} has one on '
                    f"{tensor.device}; return tensor.cpu(), or use the transport nixl, nccl or cuda_ipc"
                )
        exchange().place(obj_id, rdt_object)
        described = [(tensor.shape, tensor.dtype) for tensor in rdt_object]
        node_id = ray.get_runtime_context().get_node_id()
        return PlacedTensors(described, "cpu" if rdt_object else None, exchange().address, node_id)

    def get_communicator_metadata(
        self, src_actor: Any, dst_actor: Any, backend: str | None = None
    ) -> CommunicatorMetadata:
        """Nothing: the object's metadata names its owner."""
        return CommunicatorMetadata()

    def recv_multiple_tensors(
        self,
        obj_id: str,
        tensor_transport_metadata: PlacedTensors,
        communicator_metadata: CommunicatorMetadata,
        target_buffers: list[torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        """Return views of the owner's memory, or copies in the buffers that the user has set.

        Raises:
            PeerDied: the owner has ended.
            TransportError: the owner is on another node.
            StaleReference: Ray has freed the object.
        """
        placed = tensor_transport_metadata
        here = ray.get_runtime_context().get_node_id()
        if placed.node_id != here:
            raise TransportError(
                f'object {obj_id} is on node {placed.node_id}, its receiver on {here}; tensor_transport="mora" is '
                "shared memory, so create both actors on one node (NodeAffinitySchedulingStrategy)"
            )
        views = exchange().fetch(placed.address, obj_id, len(placed.tensor_meta), deadline_s=FETCH_DEADLINE_S)
        if target_buffers is None:
            return views
        for buffer, view in zip(target_buffers, views, strict=True):
            buffer.copy_(view)
        return target_buffers

    def send_multiple_tensors(
        self,
        tensors: list[torch.Tensor],
        tensor_transport_metadata: PlacedTensors,
        communicator_metadata: CommunicatorMetadata,
    ) -> None:
        """Ray calls this for two-sided transports alone."""
        raise NotImplementedError("the receiver fetches; Ray calls send_multiple_tensors for two-sided transports")

    def garbage_collect(self, obj_id: str, tensor_transport_meta: PlacedTensors, tensors: list[torch.Tensor]) -> None:
        """Free the object's slots once its receivers have dropped their views."""
        exchange().remove(obj_id)

    def abort_transport(self, obj_id: str, communicator_metadata: CommunicatorMetadata) -> None:
        """End a fetch that Ray has given up. It has a deadline of its own, and nothing else of it is left."""
