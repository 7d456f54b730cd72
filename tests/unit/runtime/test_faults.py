"""Planned faults: specifications are parsed, and each fault happens exactly once."""

import errno
import os
import signal
from pathlib import Path

import pytest
from mora_runtime.errors import SettingsError
from mora_runtime.process import faults
from mora_runtime.process.faults import POINTS, Fault, FaultPlan, happened, parse


def test_several_specifications_are_read_in_order() -> None:
    assert parse("image.0:prepared:2, coordinator.0:renamed:1:enospc,") == (
        Fault("image.0", "prepared", 2),
        Fault("coordinator.0", "renamed", 1, "enospc"),
    )
    assert ",".join(str(fault) for fault in parse("a:prepared:1,b:acked:3:stop")) == "a:prepared:1,b:acked:3:stop"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image.0:prepared", "expected role:point:n"),
        ("image.0:preparred:1", "did you mean `prepared`"),
        ("image.0:prepared:0", "expected n as an integer from 1, got `0`"),
        ("image.0:prepared:x", "expected n as an integer from 1, got `x`"),
        ("image.0:prepared:1:explode", "no action `explode`"),
        (":prepared:1", "expected role:point:n"),
    ],
)
def test_an_invalid_specification_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse(text)


def test_a_fault_hits_its_role_at_the_nth_passage_of_its_point_and_never_again(tmp_path: Path) -> None:
    planned = parse("image.0:fsynced:3:enospc,video.0:fsynced:1:enospc")
    plan = FaultPlan("image.0", planned, tmp_path / "faults")
    plan.pass_by("fsynced")
    plan.pass_by("renamed")
    plan.pass_by("fsynced")
    with pytest.raises(OSError, match="No space left on device") as caught:
        plan.pass_by("fsynced")
    assert caught.value.errno == errno.ENOSPC
    assert happened(tmp_path) == ["image.0:fsynced:3:enospc"]
    restarted = FaultPlan("image.0", planned, tmp_path / "faults")
    for _ in range(5):
        restarted.pass_by("fsynced")


@pytest.mark.parametrize(("action", "status"), [("kill", -signal.SIGKILL), ("exit0", 0)])
def test_a_process_dies_at_the_planned_point(tmp_path: Path, action: str, status: int) -> None:
    child = os.fork()
    if child == 0:
        FaultPlan("a", (Fault("a", "acked", 1, action),), tmp_path / "faults").pass_by("acked")  # type: ignore[arg-type]
        os._exit(9)
    _, code = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(code) == status
    assert len(happened(tmp_path)) == 1


def test_without_a_plan_every_point_is_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MORA_FAULT", raising=False)
    faults.arm("image.0", tmp_path)
    for point in POINTS:
        faults.reach(point)
    assert not (tmp_path / "faults").exists()
    assert happened(tmp_path) == []
