"""The address that a page or service is at: bound before anything else is done, and told from one outside loopback."""

from __future__ import annotations

import ipaddress
import socket

from mora_runtime.errors import SettingsError

from mora_launch.limits import SOCKET_BUFFER_NBYTES

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def bound(host: str, port: int) -> socket.socket:
    """A socket with the address, which nobody can connect to yet.

    Raises:
        SettingsError: it is taken, or no address of this machine.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # connections take them over
            found.setsockopt(socket.SOL_SOCKET, direction, SOCKET_BUFFER_NBYTES)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise SettingsError(f"--host {host} --port {port}: cannot be listened on: {error.strerror or error}") from None
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def names_of(host: str) -> frozenset[str] | None:
    """What the Host header of an honest request may say; None, anything, outside loopback."""
    return _LOOPBACK | {host.lower()} if is_loopback(host) else None


def url_of(host: str, port: int) -> str:
    """The address as a browser takes it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
