"""Faulty peer: offers of device pools that no honest peer sends, as packets on a doorbell."""

import gc
import os
import random
import socket
from collections.abc import Iterator

import pytest
from mora_runtime.limits import MAX_SEGMENT_NBYTES, NUM_DEVICE_EVENTS
from mora_runtime.wire.codec import encode
from mora_runtime.wire.device_tensor import DeviceOffer
from mora_runtime.wire.doorbell import Doorbell, OfferedPool
from mora_runtime.wire.messages import Ping

OFFER = DeviceOffer(7, b"u" * 16, 4 << 20, bytes(range(64)), (b"e" * 64,) * NUM_DEVICE_EVENTS)
OWNER = "image.0.1.0123456789abcdef"
HEAD = b"POOL" + OWNER.encode().ljust(128, b"\0")
WHOLE = HEAD + OFFER.pack()
NUM_FUZZED = 3000


class Wire:
    """A doorbell, and the other end of its socket in the hands of an attacker."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.doorbell = Doorbell(ours, "peer.0")
        self.process = os.pidfd_open(os.getpid())

    def send(self, packet: bytes, num_descriptors: int = 1) -> None:
        socket.send_fds(self.theirs, [packet], [self.process] * num_descriptors)

    def offers(self) -> list[OfferedPool]:
        """What the doorbell has accepted of the packets so far. A frame at the end proves that it has read them all."""
        self.theirs.send(encode(Ping(1)))
        assert self.doorbell.read() == encode(Ping(1))
        taken = self.doorbell.take_offers()
        for offered in taken:
            if not isinstance(offered, OfferedPool):
                offered.close()  # a packet of a segment's size
        return [offered for offered in taken if isinstance(offered, OfferedPool)]

    def close(self) -> None:
        self.doorbell.close()
        self.theirs.close()
        os.close(self.process)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def num_descriptors() -> int:
    gc.collect()  # what earlier tests left in reference cycles would close its own meanwhile
    return len(os.listdir("/proc/self/fd"))


def test_an_honest_offer_crosses_with_its_process(wire: Wire) -> None:
    sender = Doorbell(wire.theirs, "us")
    sender.send_pool(OfferedPool(OWNER, OFFER, wire.process))
    assert wire.doorbell.read() is None
    (offered,) = wire.doorbell.take_offers()
    assert isinstance(offered, OfferedPool)
    assert (offered.owner, offered.offer) == (OWNER, OFFER)
    assert offered.process is not None
    assert offered.process != wire.process
    offered.close()


def test_the_hand_packed_offer_of_this_file_is_of_this_protocol(wire: Wire) -> None:
    wire.send(WHOLE)
    (offered,) = wire.offers()
    assert (offered.owner, offered.offer) == (OWNER, OFFER)
    offered.close()


@pytest.mark.parametrize(
    "packet",
    [
        b"POOL", HEAD, WHOLE[:-1], WHOLE + b"\0", HEAD[4:] + OFFER.pack(), b"pool" + WHOLE[4:], b"\0" * 400,
        HEAD + b"\x02" + OFFER.pack()[1:],
        HEAD + DeviceOffer(7, b"u" * 16, 0, b"h" * 64, (b"e" * 64,)).pack(),
        HEAD + DeviceOffer(7, b"u" * 16, MAX_SEGMENT_NBYTES + 1, b"h" * 64, (b"e" * 64,)).pack(),
        HEAD + DeviceOffer(7, b"u" * 16, 4096, b"h" * 64, ()).pack(),
        HEAD + DeviceOffer(7, b"u" * 16, 4096, b"h" * 64, (b"e" * 64,) * (NUM_DEVICE_EVENTS + 1)).pack(),
        HEAD + DeviceOffer(7, b"u" * 16, 4096, b"h" * 64, (b"e" * 63,)).pack(),
        WHOLE + bytes(60 << 10),
    ],
    ids=range(14),
)  # fmt: skip
def test_a_malformed_offer_is_refused_and_its_descriptor_closed(wire: Wire, packet: bytes) -> None:
    before = num_descriptors()
    wire.send(packet)
    assert wire.offers() == []
    assert wire.doorbell.num_refused == 1
    assert num_descriptors() == before


@pytest.mark.parametrize("count", [0, 2])
def test_an_offer_without_one_descriptor_is_refused(wire: Wire, count: int) -> None:
    before = num_descriptors()
    if count:
        wire.send(WHOLE, count)
    else:
        wire.theirs.send(WHOLE)
    # the kernel delivers one descriptor of two, and says that it dropped the other
    for offered in wire.offers():
        assert count == 2
        offered.close()
    assert num_descriptors() == before


def test_a_flood_of_offers_waits_in_the_socket(wire: Wire) -> None:
    before = num_descriptors()
    wire.theirs.setblocking(False)
    sent = 0
    while sent < 300:
        try:
            wire.send(WHOLE)
        except BlockingIOError:
            break
        sent += 1
    assert sent > 20
    assert wire.doorbell.read() is None
    assert num_descriptors() - before <= 256
    while offers := wire.doorbell.take_offers():
        for offered in offers:
            offered.close()
        wire.doorbell.read()
    assert num_descriptors() == before


@pytest.mark.every_environment
def test_mutated_offers_are_refused_or_well_formed_and_cost_no_descriptor(wire: Wire) -> None:
    chance = random.Random(5)
    before = num_descriptors()
    num_taken = 0
    for _ in range(NUM_FUZZED):
        packet = bytearray(WHOLE)
        for _ in range(chance.randint(1, 3)):
            kind = chance.randrange(3)
            if kind == 0 and packet:
                packet[chance.randrange(min(len(packet), 260))] = chance.randrange(256)
            elif kind == 1:
                del packet[chance.randrange(len(packet) + 1) :]
            else:
                at = chance.randrange(len(packet) + 1)
                packet[at:at] = chance.randbytes(chance.randrange(80))
        wire.send(bytes(packet) or b"\0")
        for offered in wire.offers():
            num_taken += 1
            assert DeviceOffer.unpack(offered.offer.pack()) == offered.offer
            assert 0 < offered.offer.nbytes <= MAX_SEGMENT_NBYTES
            offered.close()
    assert 0 < num_taken < NUM_FUZZED
    assert num_descriptors() == before
