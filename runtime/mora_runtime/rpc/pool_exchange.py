"""Introduces the servers of one process to each other's device pools, which this process need not be able to open."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mora_runtime.errors import MoraError
from mora_runtime.tensors.peer_pool import PeerPool
from mora_runtime.wire.messages import PoolOpened

if TYPE_CHECKING:
    from mora_runtime.rpc.client import Client

log = logging.getLogger(__name__)


class PoolExchange:
    """Passes each server's offer on to the other servers, and their acceptance back to the owner.

    A server sends a tensor in device memory only after its reader has accepted the offer, so an offer or an acceptance
    that is lost costs speed and nothing else.
    """

    def __init__(self) -> None:
        self._clients: list[Client] = []

    def join(self, client: Client) -> None:
        """Add a greeted client, and offer its server the pools of the others."""
        for other in self._clients:
            for pool in other.peer.pools.values():
                client.offer(pool)
        self._clients.append(client)

    def leave(self, client: Client) -> None:
        """Remove a client whose server has ended."""
        if client in self._clients:
            self._clients.remove(client)

    def offered(self, source: Client, pools: list[PeerPool]) -> None:
        """Pass new pools of one server on to the others."""
        for client in self._clients:
            if client is not source:
                for pool in pools:
                    client.offer(pool)

    def opened(self, message: PoolOpened) -> None:
        """Tell the owner of a pool which process has opened it. An owner that has ended is not told."""
        for client in self._clients:
            if client.peer.name == message.owner:
                try:
                    client.tell(message)
                except MoraError as error:
                    log.warning("%s will not send tensors in device memory: %s", client.server, error)
