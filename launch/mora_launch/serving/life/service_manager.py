"""Tells a service manager (systemd with `Type=notify`) what the server is doing: `sd_notify(3)`."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)
_VARIABLE = "NOTIFY_SOCKET"


def tell_manager(state: str) -> None:
    """Send `READY=1`, `STOPPING=1` or another state to the manager that started this process, if one did."""
    address = os.environ.get(_VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
            link.connect("\0" + address[1:] if address.startswith("@") else address)
            link.send(state.encode())
    except OSError as error:
        log.warning("the service manager cannot be told %s: %s", state, error)
