"""Other local user, faulty peer: without the key they get nothing; with it they can break only their own calls."""

import contextlib
import itertools
import os
import pickle
import random
import resource
import socket
import struct
import time
from collections.abc import Callable

import pytest
import torch
import zmq
from hostile_peer import Peer, Target
from mora_runtime import Client
from mora_runtime.errors import AgentFailed, DeadlineExceeded, PeerDied, SegmentLost
from mora_runtime.wire.codec import MAGIC, decode, encode
from mora_runtime.wire.messages import (
    PROTOCOL_VERSION,
    Backward,
    Call,
    Drop,
    Failure,
    Hello,
    Ping,
    Pong,
    Release,
    Result,
    Welcome,
)

Peers = Callable[..., Peer]
Serves = Callable[[], None]
GARBAGE = [
    bytes(9), b"\x01\x00", b"\xff" + bytes(8) + b"\x01\x7f", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    pickle.dumps({"a": 1}), random.Random(0).randbytes(4096), b"\xff" * 70_000,
]  # fmt: skip


def connected(path: str, kind: int) -> socket.socket:
    """A raw socket; connecting waits while the backlog is full, five seconds at most."""
    raw = socket.socket(socket.AF_UNIX, kind)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 5, 0))
    raw.connect(path)
    return raw


def count(client: Client) -> int:
    counted: int = client.call("adder", "count", {}, deadline_s=10).values["value"]
    return counted


@pytest.mark.parametrize("kind", ["calls", "control"])
@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_raw_bytes_on_a_socket_of_zeromq_reach_no_agent(target: Target, serves: Serves, kind: str, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(target.path(kind))
        raw.settimeout(5)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # ZeroMQ may hang up before it has read all
            raw.sendall(data)
        serves()


@pytest.mark.every_environment
def test_a_peer_without_a_key_gets_nothing(target: Target, serves: Serves) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.connect(f"ipc://{target.path('calls')}")
        for _ in range(3):
            stranger.send(encode(Hello(PROTOCOL_VERSION, "stranger")))
        serves()
        assert not stranger.poll(200)
        stranger.close(linger=0)


def test_a_peer_with_another_key_gets_nothing(target: Target, serves: Serves) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
        key = (target.run.keys / "server.key").read_text()
        stranger.curve_serverkey = key.split('public-key = "')[1].split('"')[0].encode()
        stranger.connect(f"ipc://{target.path('calls')}")
        stranger.send(encode(Hello(PROTOCOL_VERSION, "stranger")))
        serves()
        assert not stranger.poll(200)
        stranger.close(linger=0)


@pytest.mark.parametrize("kind", ["calls", "control"])
def test_300_half_open_connections_do_not_delay_an_honest_call(target: Target, serves: Serves, kind: str) -> None:
    opened = []
    try:
        for _ in range(300):
            opened.append(connected(target.path(kind), socket.SOCK_STREAM))
            opened[-1].send(b"\xff")
        serves()
    finally:
        for raw in opened:
            raw.close()


def test_300_silent_doorbells_do_not_delay_an_honest_call_and_are_closed(target: Target, serves: Serves) -> None:
    serves()
    before = target.num_descriptors()
    opened = []
    try:
        for _ in range(300):
            opened.append(connected(target.path("doorbell"), socket.SOCK_SEQPACKET))
        serves()
        assert target.num_descriptors() < before + 100
    finally:
        for raw in opened:
            raw.close()


@pytest.mark.parametrize("token", [b"x", b"0" * 32, b"\xff" * 32, bytes(32), b"y" * 5000], ids=range(5))
def test_a_wrong_token_closes_the_doorbell(target: Target, serves: Serves, token: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
        raw.settimeout(5)
        raw.connect(target.path("doorbell"))
        raw.send(token)
        assert raw.recv(100) == b""
    serves()


def test_packets_of_another_size_on_a_greeted_doorbell_are_ignored(peers: Peers, serves: Serves) -> None:
    peer = peers()
    peer.greet()
    assert peer.doorbell is not None
    for data in (b"x", b"\0" * 144, bytes(143), bytes(145), random.Random(0).randbytes(10_000)):
        peer.doorbell._socket.send(data)
    assert isinstance(peer.ask(method="count"), Result)
    serves()


@pytest.mark.parametrize("kind", ["calls", "control"])
def test_invalid_frames_of_any_sender_are_dropped(peers: Peers, serves: Serves, kind: str) -> None:
    peer = peers(kind=kind)
    for frame in GARBAGE[:-1]:
        peer.socket.send(frame)
    peer.socket.send_multipart([b""] * 1000)
    peer.socket.send_multipart([encode(Ping(1))] * 2)
    peer.socket.send(b"")
    serves()


@pytest.mark.every_environment
def test_a_frame_over_the_limit_ends_only_its_senders_connection(peers: Peers, serves: Serves) -> None:
    peers().socket.send(b"\xff" * ((64 << 10) + 1))
    serves()


def test_invalid_frames_on_a_greeted_doorbell_are_dropped(peers: Peers, serves: Serves) -> None:
    peer = peers()
    peer.greet()
    assert peer.doorbell is not None
    frames = [MAGIC, MAGIC + random.Random(0).randbytes(4096), MAGIC + bytes([PROTOCOL_VERSION]) + b"\xff" * 65_531]
    for frame in [*frames, encode(Ping(1)), encode(Hello(PROTOCOL_VERSION, peer.name)), encode(Release([1, 2]))]:
        peer.doorbell.send_frame(frame)
    peer.doorbell.send_frame(encode(Call(1, "adder", "count", {}, None, None, False, [])))
    deadline = time.monotonic() + 10
    while (frame := peer.doorbell.read()) is None and time.monotonic() < deadline:
        pass
    assert frame is not None
    answer = decode(frame)
    assert isinstance(answer, Result)
    assert answer.id == 1
    serves()


def test_a_peer_that_reads_no_answers_delays_no_other_peer_and_is_disconnected(peers: Peers, serves: Serves) -> None:
    peer = peers()
    peer.greet()
    assert peer.doorbell is not None
    number = 0
    deadline = time.monotonic() + 30
    while peer.doorbell.is_open and time.monotonic() < deadline:
        number += 1
        try:
            peer.doorbell.send_frame(encode(Call(number, "adder", "count", {}, None, None, False, [])))
        except DeadlineExceeded:
            serves()
        except PeerDied:
            break
    assert time.monotonic() < deadline
    serves()


def test_a_peer_of_another_version_is_told_at_once(peers: Peers, serves: Serves) -> None:
    peer = peers()
    hello = encode(Hello(PROTOCOL_VERSION, peer.name))
    peer.socket.send(MAGIC + bytes([PROTOCOL_VERSION + 1]) + hello[5:])
    answer = peer.receive()
    assert isinstance(answer, Failure)
    assert f"version 0x{PROTOCOL_VERSION + 1:02x}, expected {PROTOCOL_VERSION}; update the older side" in answer.text
    peer.send(Hello(PROTOCOL_VERSION + 1, peer.name))
    answer = peer.receive()
    assert isinstance(answer, Failure)
    assert f"expected a HELLO of protocol version {PROTOCOL_VERSION}" in answer.text
    serves()


def test_a_name_that_differs_from_its_sockets_is_refused(peers: Peers) -> None:
    peer = peers()
    peer.send(Hello(PROTOCOL_VERSION, "coordinator.0.1.0123"))
    answer = peer.receive()
    assert isinstance(answer, Failure)
    assert answer.code == "protocol"


def test_calls_before_a_greeting_are_refused(peers: Peers, honest: Client) -> None:
    before = count(honest)
    peer = peers()
    answer = peer.ask(method="count")
    assert isinstance(answer, Failure)
    assert answer.code == "protocol"
    peer.send(Drop([1], []))
    peer.send(Release([1]))
    assert count(honest) == before + 1


def test_messages_that_are_not_for_a_server_are_ignored(peers: Peers, serves: Serves) -> None:
    peer = peers()
    welcome = peer.greet()
    for message in (
        welcome,
        Result(1, {}, None, None, 0, 0, []),
        Failure(9, "agent_failed", "", []),
        Pong(1, "", *[0] * (len(Pong._fields) - 2)),
    ):
        peer.send(message)
    peer.send(Ping(3))
    peer.send(Release([1, 2, 2**64 - 1]))
    peer.send(Drop([1, 2, 2**64 - 1], [7]))
    assert isinstance(peer.ask(method="count"), Result)
    serves()


def test_a_repeated_id_runs_nothing(peers: Peers, honest: Client) -> None:
    peer = peers()
    peer.greet()
    before = count(honest)
    for number in (5, 5, 4, 1, 0, 6):
        peer.send(Call(number, "adder", "count", {}, None, None, False, []))
    first, second = peer.receive(), peer.receive()
    assert isinstance(first, Result)
    assert isinstance(second, Result)
    assert (first.id, second.id) == (5, 6)
    assert count(honest) == before + 3


def test_a_backward_of_a_ticket_that_was_never_issued_is_refused(peers: Peers) -> None:
    peer = peers()
    peer.greet()
    peer.send(Backward(1, 2**64 - 1, {}, False, []))
    answer = peer.receive()
    assert isinstance(answer, Failure)
    assert answer.code == "unknown_ticket"


def test_a_second_peer_with_the_same_identity_cannot_take_the_first_ones_place(peers: Peers, serves: Serves) -> None:
    first = peers(number=1)
    first.greet()
    second = peers(number=1)
    second.send(Hello(PROTOCOL_VERSION, second.name))
    assert isinstance(first.ask(method="count"), Result)
    assert second.receive(0.2) is None
    serves()


def test_a_peer_that_greets_again_starts_with_a_clean_state(peers: Peers, serves: Serves) -> None:
    peer = peers()
    tokens = {peer.greet(doorbell=False).token for _ in range(3)}
    assert len(tokens) == 3
    assert isinstance(peer.ask(method="count"), Result)
    serves()


@pytest.mark.every_environment
def test_a_flood_does_not_delay_an_honest_call(peers: Peers, serves: Serves) -> None:
    peer = peers()
    peer.greet()
    release = encode(Release([1]))
    sent = 0
    deadline = time.monotonic() + 30
    while sent < 20_000 and time.monotonic() < deadline:
        try:
            peer.socket.send(release, zmq.NOBLOCK)
            sent += 1
        except zmq.Again:
            peer.socket.poll(10, zmq.POLLOUT)
        if sent == 10_000:
            serves()
            sent += 1
    assert sent >= 20_000
    serves()


def test_an_error_whose_text_is_not_utf8_still_becomes_an_answer(honest: Client, serves: Serves) -> None:
    with pytest.raises(AgentFailed, match=r"a file named \\udcff does not exist"):
        honest.call("adder", "fail_strangely", {}, deadline_s=10)
    serves()


@pytest.mark.every_environment
def test_an_agent_that_calls_exit_fails_only_its_call(honest: Client, serves: Serves) -> None:
    with pytest.raises(AgentFailed, match=r"adder\.leave: SystemExit"):
        honest.call("adder", "leave", {}, deadline_s=10)
    serves()


def test_a_new_greeting_removes_a_peer_that_left_before_its_doorbell(peers: Peers, serves: Serves) -> None:
    for _ in range(20):
        peer = peers()
        assert isinstance(peer.greet(doorbell=False), Welcome)
        peer.close()
    serves()


def test_a_server_at_its_limit_of_files_says_so_and_serves_again_below_it(
    honest: Client, target: Target, serves: Serves
) -> None:
    before = count(honest)  # the server has accepted this client when it has answered
    allowed = resource.prlimit(target.process.pid, resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir(f"/proc/{target.process.pid}/fd")}
    lowest_free = next(number for number in itertools.count() if number not in used)
    large = torch.ones(1 << 20)  # lies in a segment that the server has not seen
    resource.prlimit(target.process.pid, resource.RLIMIT_NOFILE, (lowest_free, allowed[1]))
    try:
        with pytest.raises(SegmentLost, match="too many open files"):
            honest.call("adder", "add_one", {"x": large}, deadline_s=10)
        assert count(honest) == before + 1
        assert honest.ping(5).memory_nbytes >= 0
    finally:
        resource.prlimit(target.process.pid, resource.RLIMIT_NOFILE, allowed)
    returned = honest.call("adder", "add_one", {"x": large}, deadline_s=10).values["value"]
    assert torch.equal(returned.tensor(), large + 1)
    serves()
