"""ZeroMQ sockets with all their options, and the keys of a run.

All traffic is CURVE-authenticated with keys made for the run (files 0600 in a 0700 directory). A process without the
run's client key cannot get a frame to a server; without authentication ZeroMQ would pass raw bytes of any sender to the
application.
"""

from __future__ import annotations

import os
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from mora_runtime.errors import ConfigurationError
from mora_runtime.files.file_lock import lock_file
from mora_runtime.limits import (
    HANDSHAKE_TIMEOUT_S,
    HEARTBEAT_INTERVAL_S,
    HEARTBEAT_TIMEOUT_S,
    HIGH_WATER_MARK,
    LOCK_DEADLINE_S,
    MAX_FRAME_NBYTES,
)
from mora_runtime.process.run_directory import RunDirectory

_CLIENT, _SERVER = "client", "server"
_CLIENTS_FOLDER = "clients"


def make_keys(run: RunDirectory) -> None:
    """Make the run's two key pairs, one for all clients and one for all servers, unless they exist.

    Every process of a run calls this at start, several at the same moment: one makes the keys, the others wait.
    """
    clients = run.keys / _CLIENTS_FOLDER
    folder = os.open(run.keys, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock_file(folder, LOCK_DEADLINE_S, shown=str(run.keys))
        if not (clients / f"{_CLIENT}.key").exists():
            _make_pairs(run.keys, clients)
    finally:
        os.close(folder)


def _make_pairs(keys: Path, clients: Path) -> None:
    old = os.umask(0o077)
    try:
        for name in (_CLIENT, _SERVER):
            zmq.auth.create_certificates(str(keys), name)
        clients.mkdir(exist_ok=True)
        # last and in one rename: its presence tells later processes that all keys exist, even after a kill in between
        copy = keys / f"{_CLIENT}.key.copy"
        copy.write_bytes((keys / f"{_CLIENT}.key").read_bytes())
        copy.rename(clients / f"{_CLIENT}.key")
    finally:
        os.umask(old)


def authenticator(context: zmq.Context[zmq.Socket[bytes]], run: RunDirectory) -> ThreadAuthenticator:
    """Start an authenticator that accepts only the run's client key."""
    started = ThreadAuthenticator(context)
    started.start()
    started.configure_curve(domain="*", location=str(run.keys / _CLIENTS_FOLDER))
    return started


def server_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    run: RunDirectory,
    endpoint: str,
    *,
    heartbeat_timeout_s: float = HEARTBEAT_TIMEOUT_S,
) -> zmq.Socket[bytes]:
    """Make a ROUTER bound to `endpoint`."""
    made = _configured(context, zmq.ROUTER, heartbeat_timeout_s)
    made.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an unroutable reply is an error, not silence
    made.curve_publickey, made.curve_secretkey = _load(run, _SERVER)
    made.curve_server = True
    made.bind(endpoint)
    return made


def client_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    run: RunDirectory,
    endpoint: str,
    identity: bytes,
    *,
    heartbeat_timeout_s: float = HEARTBEAT_TIMEOUT_S,
) -> zmq.Socket[bytes]:
    """Make a DEALER connected to `endpoint`."""
    made = _configured(context, zmq.DEALER, heartbeat_timeout_s)
    made.setsockopt(zmq.IDENTITY, identity)
    made.curve_publickey, made.curve_secretkey = _load(run, _CLIENT)
    made.curve_serverkey, _ = _load(run, _SERVER, secret=False)
    made.connect(endpoint)
    return made


def has_messages(socket: zmq.Socket[bytes]) -> bool:
    """True when a message can be received; the socket's descriptor only signals that this may have changed."""
    return bool(int(socket.EVENTS) & zmq.POLLIN)


def _configured(context: zmq.Context[zmq.Socket[bytes]], kind: int, heartbeat_timeout_s: float) -> zmq.Socket[bytes]:
    made = context.socket(kind)
    made.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
    made.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_NBYTES)
    made.setsockopt(zmq.HANDSHAKE_IVL, round(HANDSHAKE_TIMEOUT_S * 1000))
    made.setsockopt(zmq.HEARTBEAT_IVL, round(HEARTBEAT_INTERVAL_S * 1000))
    made.setsockopt(zmq.HEARTBEAT_TIMEOUT, round(heartbeat_timeout_s * 1000))
    return made


def _load(run: RunDirectory, name: str, *, secret: bool = True) -> tuple[bytes, bytes]:
    suffix = "key_secret" if secret else "key"
    try:
        public, private = zmq.auth.load_certificate(run.keys / f"{name}.{suffix}")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the run's {name} key cannot be read: {error}; start a new run") from None
    return public, private or b""
