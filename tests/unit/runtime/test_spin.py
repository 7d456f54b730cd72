"""A process spins for messages while its recent waits were short."""

import pytest
from mora_runtime.limits import SHORTEST_SPIN_NS
from mora_runtime.wire.spin import Spin

LONGEST_NS = 1_000_000


def test_long_waits_end_spinning_almost_at_once_and_short_waits_restore_it() -> None:
    spin = Spin(LONGEST_NS)
    for _ in range(20):
        spin.waited(50 * LONGEST_NS)
    assert spin.ns == SHORTEST_SPIN_NS
    spin.waited(300_000)
    assert spin.ns == 600_000  # the next wait of this length ends while it looks
    spin.waited(900_000)
    assert spin.ns == LONGEST_NS


def test_short_waits_do_not_shorten_spinning() -> None:
    spin = Spin(LONGEST_NS)
    spin.waited(10_000)
    assert spin.ns == LONGEST_NS


def test_a_process_that_may_not_spin_never_does() -> None:
    spin = Spin(0)
    for ns in (0, 1000, 10**9):
        spin.waited(ns)
        assert spin.ns == 0


@pytest.mark.parametrize(("yield_ns", "is_shared"), [(1_000, False), (50_000, True)])
def test_a_process_that_shared_its_core_spins_again_after_the_next_short_wait(
    monkeypatch: pytest.MonkeyPatch, yield_ns: int, is_shared: bool
) -> None:
    clock = iter((0, yield_ns))
    monkeypatch.setattr("mora_runtime.wire.spin.time.monotonic_ns", lambda: next(clock))
    spin = Spin(LONGEST_NS)
    spin.give_way()
    assert spin.ns == (0 if is_shared else LONGEST_NS)
    spin.waited(LONGEST_NS // 4)
    assert spin.ns == (LONGEST_NS // 2 if is_shared else LONGEST_NS)
