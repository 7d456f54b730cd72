"""The user behind a connection, according to the kernel."""

from __future__ import annotations

import os
import socket

import pytest
from mora_launch.web.peer import peer_uid


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_connection_of_ours_is_ours_until_its_socket_is_closed(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        accepted, address = server.accept()
        with accepted:
            ours = accepted.getsockname()[:2]
            assert peer_uid(ours, address[:2]) == os.getuid()
            client.shutdown(socket.SHUT_WR)
            assert peer_uid(ours, address[:2]) == os.getuid(), "it still waits for an answer"
            client.close()
            assert peer_uid(ours, address[:2]) is None, "a socket that no process holds has no user"


def test_an_ipv4_client_of_an_ipv6_listener_is_found() -> None:
    with socket.socket(socket.AF_INET6) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", 0))
        server.listen()
        with socket.create_connection(("127.0.0.1", server.getsockname()[1])):
            accepted, address = server.accept()
            with accepted:
                assert address[0] == "::ffff:127.0.0.1"
                assert peer_uid(accepted.getsockname()[:2], address[:2]) == os.getuid()


def test_an_address_without_a_connection_has_no_user() -> None:
    assert peer_uid(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    assert peer_uid(("localhost", 1), ("127.0.0.1", 2)) is None
