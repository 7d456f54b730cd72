"""The sockets of pages and services."""

from __future__ import annotations

import asyncio
import socket

import pytest
from mora_launch.web.listening import bound
from mora_runtime.errors import SettingsError


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_answer_in_two_pieces_is_not_held_back(host: str) -> None:
    """Otherwise its second piece waits for the client's acknowledgement of the first, which takes 40 ms."""

    async def delay_of_a_connection(address: socket.socket) -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(accept, sock=address):
            _, writer = await asyncio.open_connection(*address.getsockname()[:2])
            is_undelayed = await asyncio.wait_for(found, 20)
            writer.close()
        return is_undelayed

    try:
        address = bound(host, 0)
    except SettingsError as error:
        pytest.skip(f"no such address here: {error}")
    with address:
        assert asyncio.run(delay_of_a_connection(address)) == 1
