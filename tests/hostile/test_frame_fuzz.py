"""Faulty peer: 20,000 hostile frames and tensors; `python tests/hostile/frame_fuzz.py` tests a million."""

import pytest
from frame_fuzz import FrameFuzzer, attack, resident_nbytes


@pytest.mark.every_environment
def test_hostile_frames_and_tensors_give_messages_or_named_errors_and_cost_no_memory() -> None:
    attack(5_000, seed=1)  # caches fill
    before_nbytes = resident_nbytes()
    outcomes = attack(20_000, seed=2)
    assert resident_nbytes() - before_nbytes < 5 << 20
    assert sum(outcomes.values()) == 40_000
    assert outcomes["refused frame"] > 10_000
    assert outcomes["refused tensor"] > 10_000
    assert outcomes["accepted tensor"] > 0
    kinds = set(outcomes) - {"refused frame", "refused tensor", "accepted tensor"}
    assert len(kinds) >= 8, "the mutations are gentle enough to get past the header"


def test_the_same_seed_makes_the_same_frames() -> None:
    first, second = FrameFuzzer(3), FrameFuzzer(3)
    assert [first.frame() for _ in range(100)] == [second.frame() for _ in range(100)]
