"""When a process counts as frozen."""

import os

import pytest
from mora_runtime.process.liveness import LivenessProbe, process_time


class Machine:
    """A clock, and a process whose state and processor time the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.state = "S"
        self.used_s = 5.0
        self.pulse = LivenessProbe(1, 10.0, now_s=lambda: self.now_s, read=lambda pid: (self.state, self.used_s))

    def pass_time(self, seconds: int, share: float) -> str | None:
        """Let time pass while the process uses this share of a core; returns the first finding."""
        for _ in range(seconds):
            self.now_s += 1.0
            self.used_s += share
            if (found := self.pulse.find_frozen()) is not None:
                return found
        return None


def test_a_process_with_heartbeats_is_alive_whatever_it_computes() -> None:
    machine = Machine()
    for _ in range(60):
        assert machine.pass_time(1, share=0.0) is None
        machine.pulse.beat()


def test_a_process_without_heartbeats_and_processor_time_is_found_within_fifteen_seconds() -> None:
    machine = Machine()
    assert machine.pass_time(9, share=0.0) is None
    assert machine.pass_time(5, share=0.0) == "froze: it used almost no CPU and sent no heartbeat for 10 s"


def test_a_stopped_process_is_reported_as_stopped() -> None:
    machine = Machine()
    machine.state = "T"
    found = machine.pass_time(15, share=0.0)
    assert found is not None
    assert "was stopped" in found


def test_a_process_that_computes_with_the_interpreter_lock_is_alive() -> None:
    assert Machine().pass_time(300, share=0.9) is None


def test_threads_that_only_wait_for_the_lock_are_no_sign_of_life() -> None:
    assert Machine().pass_time(15, share=0.02) is not None


def test_a_process_that_freezes_after_computing_is_found_within_fifteen_seconds() -> None:
    machine = Machine()
    assert machine.pass_time(30, share=0.9) is None
    assert machine.pass_time(15, share=0.0) is not None


def test_a_process_that_waits_for_a_disk_is_left_alone() -> None:
    machine = Machine()
    machine.state = "D"
    assert machine.pass_time(100, share=0.0) is None


def test_a_process_that_has_ended_is_not_called_frozen() -> None:
    def gone(pid: int) -> tuple[str, float]:
        raise FileNotFoundError(pid)

    clock = [0.0]
    pulse = LivenessProbe(1, 3.0, now_s=lambda: clock[0], read=gone)
    clock[0] = 60.0
    assert pulse.find_frozen() is None


def test_state_and_processor_time_are_read_from_the_machine() -> None:
    state, used_s = process_time(os.getpid())
    assert state in "RS"
    assert used_s == pytest.approx(sum(os.times()[:2]), abs=0.1)
