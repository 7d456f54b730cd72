"""Blocking a process group's listening sockets once all its members have connected.

Gloo, which connects the replicas of a role, listens on TCP for as long as the group lives and does not authenticate
peers: any user of the machine could connect. A group makes all its connections when it is created, so afterwards a
filter makes the kernel drop all packets to its listening sockets; existing connections are not affected. Gloo owns the
sockets, so they cannot be closed without ending the group.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import stat
import struct

log = logging.getLogger(__name__)
_SO_ATTACH_FILTER = 26
_SO_DOMAIN = 39
_BPF_RET = 0x06  # `ret 0`: drop every packet


def close_listeners() -> int:
    """Make the kernel drop all packets to this process's listening TCP sockets; returns the number of sockets.

    Call it after all groups of this process have been created. If the kernel refuses, the sockets stay open, and the
    log gets one warning.
    """
    closed = 0
    for descriptor in _own_sockets():
        try:
            closed += _close(descriptor)
        except OSError as error:
            log.warning(
                "this process listens on TCP for members of its group, and the kernel refuses a filter for the socket "
                "(%s): other users of this machine can connect to it", error.strerror,
            )  # fmt: skip
            break
    return closed


def _own_sockets() -> list[int]:
    """Descriptors of all sockets of this process."""
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.append(int(name))
        except OSError:
            continue  # the descriptor of the listing itself, or one that another thread has closed meanwhile
    return found


def _close(descriptor: int) -> bool:
    """Attach the filter if the descriptor listens on TCP; returns whether it does."""
    try:
        own = os.dup(descriptor)  # another thread may close the number and reuse it
    except OSError:
        return False
    with socket.socket(fileno=own) as duplicate:
        is_inet = duplicate.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN) in (socket.AF_INET, socket.AF_INET6)
        if not is_inet or not duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RET, 0, 0, 0))
        program = struct.pack("HP", 1, ctypes.addressof(instruction))
        duplicate.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    return True
