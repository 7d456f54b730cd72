"""Closing the doors of a group once all members are in: its listening sockets take no new connection any more.

Gloo, which connects the replicas of a role, listens on TCP for as long as the group lives, and asks nobody who
connects for a key: any user of the machine could. All connections of a group are made when it is, so from then on a
filter has the kernel drop whatever comes to its listening sockets; the connections that stand are not touched. The
sockets themselves are gloo's and cannot be closed without ending it.
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
_BPF_RET = 0x06  # `ret 0`: of every packet, keep nothing


def close_listeners() -> int:
    """Have the kernel drop all that comes to this process's listening TCP sockets; returns how many there are.

    Call it when every group that this process is a member of has been made. Where the kernel refuses, the sockets stay
    as they are, with one warning in the log.
    """
    closed = 0
    for descriptor in _own_sockets():
        try:
            closed += _close(descriptor)
        except OSError as error:
            log.warning(
                "this process listens on TCP for members of its group, and the kernel refuses a filter for that (%s): "
                "other users of this machine can connect there", error.strerror,
            )  # fmt: skip
            break
    return closed


def _own_sockets() -> list[int]:
    """Descriptors of sockets."""
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.append(int(name))
        except OSError:
            continue  # the listing's own, or closed by another thread meanwhile
    return found


def _close(descriptor: int) -> bool:
    """Attach the filter where a descriptor listens on TCP; whether it does."""
    try:
        own = os.dup(descriptor)  # another thread may close the number, and open it for something else
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
