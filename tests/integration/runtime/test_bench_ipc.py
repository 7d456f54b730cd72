"""`mora bench ipc` runs, checks the answers that it times, and names all contestants. Its timings are not tested."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mora_launch.environments.venvs import ROOT

from benchmarks.ipc.contestant import Contestant, Turn, WrongAnswer, take_turn
from benchmarks.ipc.floor import FreshAdd
from benchmarks.ipc.peers import FAMILIES, PING

OURS = {"ours", "resident", "fresh_output", "floor", "add", "copy", "fresh_add"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Path of the JSON of a quick run, and its output."""
    path = tmp_path_factory.mktemp("bench") / "ipc.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ipc", "--quick", "--soak", "10000", "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path, done.stdout


@pytest.fixture(scope="module")
def report(run: tuple[Path, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run[0].read_text())
    return found


@pytest.mark.long
def test_the_report_has_the_promised_keys(report: dict[str, Any]) -> None:
    assert {"machine", "num_rounds", "sizes", "small", "by_reference", "soak", "notes", "verdict"} <= set(report)
    for size in report["sizes"]:
        assert {"bytes", "ours_us", "floor_us", "ratio", "resident_ratio", "peers_us"} <= set(size)
    assert {"ours_us", "zmq_us", "ratio", "empty_call_us"} <= set(report["small"])
    assert {"bytes", "us", "hand_over_us", "ratio_to_small"} <= set(report["by_reference"])
    assert all({"target", "limit", "measured", "met"} <= set(entry) for entry in report["verdict"])


@pytest.mark.long
def test_every_turn_of_every_contestant_was_checked(report: dict[str, Any]) -> None:
    for size in report["sizes"]:
        checked = size["num_turns_checked"]
        assert set(checked) >= OURS | set(size["peers_us"])
        assert all(number > 0 for number in checked.values())


@pytest.mark.long
def test_every_contestant_is_reported_as_measured_or_absent(report: dict[str, Any]) -> None:
    playing = {PING, *(name for size in report["sizes"] for name in size["peers_us"])}
    absent = {*report["not_installed"], *report["left_out"]}
    assert playing | absent == {name for family in FAMILIES for name in family.names}
    assert not playing & absent
    assert report["failed"] == []


@pytest.mark.long
def test_the_picture_and_the_table_show_all_measured_contestants(run: tuple[Path, str], report: dict[str, Any]) -> None:
    path, printed = run
    picture = path.with_suffix(".svg").read_text()
    assert picture.startswith("<?xml")
    assert all(name in printed for name in report["sizes"][0]["peers_us"])
    assert "by reference" in printed


@pytest.mark.long
def test_the_soak_reports_every_tenth(report: dict[str, Any]) -> None:
    soak = report["soak"]
    assert soak["num_messages"] == 10_000
    assert all(len(values) == 10 for values in soak["tenths"].values())
    assert min(soak["tenths"]["messages_per_s"]) > 0


@pytest.mark.long
def test_the_host_is_not_named(report: dict[str, Any]) -> None:
    import socket

    assert socket.gethostname() not in json.dumps(report)


def test_a_wrong_answer_is_never_timed() -> None:
    class Wrong(FreshAdd):
        def echo(self, x):  # type: ignore[no-untyped-def]
            return x + 2

    contestants: list[Contestant] = [Wrong(), FreshAdd()]
    with pytest.raises(WrongAnswer, match="expected y = x \\+ 1"):
        take_turn(contestants[0], Turn(nbytes=1024, count=3, budget_s=1.0, seed=1))
    assert len(take_turn(contestants[1], Turn(nbytes=1024, count=3, budget_s=1.0, seed=1))) == 3
