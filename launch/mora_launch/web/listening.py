"""The address of a page or service: binds it before anything else starts, and checks whether it is loopback."""

from __future__ import annotations

import ipaddress
import socket

from mora_runtime.errors import SettingsError

from mora_launch.limits import SOCKET_BUFFER_NBYTES

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address but does not listen yet.

    Raises:
        SettingsError: the address is in use, or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol is named, because asyncio sends small pieces at once (TCP_NODELAY) only on connections that have it
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # connections inherit them
            found.setsockopt(socket.SOL_SOCKET, direction, SOCKET_BUFFER_NBYTES)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise SettingsError(f"--host {host} --port {port}: cannot listen on it: {error.strerror or error}") from None
    return found


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the host."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def names_of(host: str) -> frozenset[str] | None:
    """Return the names that the Host header may have; None, for any name, outside loopback."""
    return _LOOPBACK | {host.lower()} if is_loopback(host) else None


def url_of(host: str, port: int) -> str:
    """Return the address as a URL for a browser."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
