"""Asks the kernel which user of this machine owns the other end of a TCP connection.

This happens once, when a connection is accepted. The kernel finds the socket by its two addresses (`sock_diag(7)`), so
the cost does not depend on the number of connections.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from mora_launch.limits import DIAG_DEADLINE_S, MAX_DIAG_ANSWER_NBYTES

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2 before its socket id: family, protocol, extensions, pad, states
_SOCKET_ID = struct.Struct("!HH16s16s")  # inet_diag_sockid: source port, destination port, addresses
_ANY_INTERFACE_NO_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_ANSWER = struct.Struct("=4B48x5I")  # inet_diag_msg: family, state, timer, retransmits; expires, queues, uid, inode
_ALL_STATES = 0xFFFFFFFF

Address = tuple[str, int]


def peer_uid(ours: Address, theirs: Address) -> int | None:
    """Return the id of the user who opened the peer's socket; None if the kernel does not tell.

    For a socket that its process has already closed, the kernel may report user 0. Such a socket has no inode, and the
    result is None. The kernel is asked twice, because the socket may be closed while it fills in the two fields of one
    answer.

    Args:
        ours, theirs: (address, port) of both ends of a connection on this machine.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(DIAG_DEADLINE_S)
            first = _owner(kernel, theirs, ours)
            return first[0] if first is not None and first == _owner(kernel, theirs, ours) else None
    except (OSError, ValueError, struct.error):
        return None  # no such socket, another network namespace, or a kernel without sock_diag


def _owner(kernel: socket.socket, local: Address, remote: Address) -> tuple[int, int] | None:
    """Return (user id, inode) of the socket between two addresses; None if no process has it open."""
    family, source = _packed(local[0])
    _, destination = _packed(remote[0])
    request = (
        _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES)
        + _SOCKET_ID.pack(local[1], remote[1], source, destination)
        + _ANY_INTERFACE_NO_COOKIE
    )
    kernel.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + request)
    answer = kernel.recv(MAX_DIAG_ANSWER_NBYTES)
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    fields = _ANSWER.unpack_from(answer, _HEADER.size)
    uid, inode = int(fields[7]), int(fields[8])
    return (uid, inode) if inode != 0 else None


def _packed(address: str) -> tuple[int, bytes]:
    """Return family and 16 bytes of an address. An IPv4 client of an IPv6 listener has an IPv4 socket."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    return family, parsed.packed.ljust(16, b"\0")
