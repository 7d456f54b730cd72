"""How `mora test` runs its stages: which, in which order, at the same time, and what an interruption leaves."""

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.venvs import ROOT
from mora_launch.testing.run_tests import sum_up
from mora_launch.testing.side_by_side import Ended, run_side_by_side
from mora_launch.testing.stages import BUILD, Stage, all_tests, stages
from rich.console import Console

# Each waits for the other's file: they end only when they run at the same time.
MEET = """
import pathlib, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
deadline = time.monotonic() + 30
while not other.exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
print("met")
"""
# Starts a child, as tests do, and tells its process id.
SLEEP = "import pathlib, subprocess, sys; child = subprocess.Popen(['sleep', '600']); "
TELL = "pathlib.Path(sys.argv[1] + '.tmp').write_text(str(child.pid)); "
PARENT = SLEEP + TELL + "pathlib.Path(sys.argv[1] + '.tmp').rename(sys.argv[1]); child.wait()"


def python(name: str, code: str, *arguments: Path) -> Stage:
    return Stage(name, (sys.executable, "-c", code, *map(str, arguments)), 1)


def run(given: list[Stage], num_jobs: int, folder: Path) -> tuple[list[str], list[Ended]]:
    """The starts and ends of stages in order, and the result of each."""
    events: list[str] = []
    ended = run_side_by_side(
        given,
        num_jobs=num_jobs,
        folder=folder,
        variables={},
        on_start=lambda stage: events.append(f"+{stage}"),
        on_end=lambda each: events.append(f"-{each.stage}"),
    )
    return events, ended


def test_two_stages_run_at_the_same_time_with_separate_outputs(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    events, ended = run([python("a", MEET, a, b), python("b", MEET, b, a)], 2, tmp_path)
    assert events[:2] == ["+a", "+b"]
    assert [(each.exit_code, each.output) for each in ended] == [(0, "met\n")] * 2


def test_one_job_runs_them_in_their_order_and_a_failure_stops_no_other(tmp_path: Path) -> None:
    given = [python("a", "raise SystemExit(3)"), python("b", "import sys; print('words', file=sys.stderr)")]
    events, ended = run(given, 1, tmp_path)
    assert events == ["+a", "-a", "+b", "-b"]
    assert [(each.exit_code, each.output) for each in ended] == [(3, ""), (0, "words\n")]


def after(stage: Stage, *names: str) -> Stage:
    return dataclasses.replace(stage, after=names)


def test_a_stage_waits_for_another_while_later_ones_run(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    given = [after(python("second", "print('done')"), "a"), python("a", MEET, a, b), python("b", MEET, b, a)]
    events, ended = run(given, 2, tmp_path)
    assert events[:2] == ["+a", "+b"]
    assert events.index("-a") < events.index("+second")
    assert [each.exit_code for each in ended] == [0, 0, 0]


def test_a_stage_is_not_run_after_a_failed_one_and_counts_as_failed(tmp_path: Path) -> None:
    given = [python("a", "raise SystemExit(3)"), after(python("b", "print('ran')"), "a"), python("c", "print('ran')")]
    events, ended = run(given, 1, tmp_path)
    assert "+b" not in events
    codes = {str(each.stage): (each.exit_code, each.output) for each in ended}
    assert codes == {"a": (3, ""), "b": (1, "not run, because a failed\n"), "c": (0, "ran\n")}


def test_a_stage_that_waits_for_one_that_does_not_run_starts(tmp_path: Path) -> None:
    assert run([after(python("a", ""), "absent")], 1, tmp_path)[0] == ["+a", "-a"]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_stages_and_their_processes(tmp_path: Path, ended_by: signal.Signals) -> None:
    code = f"""
from pathlib import Path
from mora_launch.terminal import terminal
from mora_launch.testing.run_tests import run_all
from mora_launch.testing.stages import Stage
import sys
stages = [Stage(str(n), (sys.executable, "-c", {PARENT!r}, f"{tmp_path}/{{n}}"), 1) for n in range(2)]
run_all(stages, 2, terminal())
"""
    ignored = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", ignored, sys.executable, "-c", code]  # as a shell starts a background command
    runner = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    told = [tmp_path / "0", tmp_path / "1"]
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in told):
        assert runner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    runner.send_signal(ended_by)
    _, said = runner.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    deadline = time.monotonic() + 20
    while any(is_alive(int(path.read_text())) for path in told):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_test_file_is_in_a_stage_and_the_longest_stages_come_first() -> None:
    planned = stages([], [], with_long=False)
    assert [stage.expected_s for stage in planned] == sorted((stage.expected_s for stage in planned), reverse=True)
    covered = [ROOT / path for tests in all_tests(checkout_environments()) for path in tests.paths]
    for file in (ROOT / "tests").rglob("test_*.py"):
        assert any(file.is_relative_to(path) for path in covered), file


def test_only_stages_of_the_control_environment_start_before_the_others_are_built() -> None:
    planned = {str(stage): stage.after for stage in stages([], [], with_long=False)}
    assert planned["control: tests/chaos"] == planned["mypy"] == planned["ruff"] == ()
    for name in checkout_environments():
        assert planned[f"mypy {name}"] == (BUILD,)
        assert all(each == (BUILD,) for stage, each in planned.items() if stage.startswith(f"{name}: "))


def test_long_tests_are_left_out_unless_requested() -> None:
    (short,) = (stage for stage in stages([], [], with_long=False) if "tests/chaos" in stage.command)
    (whole,) = (stage for stage in stages([], [], with_long=True) if "tests/chaos" in stage.command)
    assert " ".join(short.command).count("-m not long") == 1
    assert " ".join(whole.command).count("-m not long") == 0


def test_a_path_goes_to_the_stages_that_contain_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    chosen = stages(["tests/golden/test_golden_vae.py", "tests/hostile/test_hostile_tensors.py::test_x"], ["-x"],
                    with_long=True)  # fmt: skip
    names = {str(stage) for stage in chosen}
    assert len(names) == 5  # control, and each of the four environments
    assert "opensora: tests/golden/test_golden_vae.py tests/hostile/test_hostile_tensors.py::test_x" in names
    assert all(stage.command[-1] == "-x" for stage in chosen)


@pytest.mark.parametrize(
    ("codes", "is_a_choice", "expected"),
    [([0, 0], False, 0), ([0, 1], False, 1), ([0, 5], False, 1), ([0, 5], True, 0), ([5, 5], True, 1)],
)
def test_a_stage_without_tests_is_a_failure_unless_tests_were_chosen(
    codes: list[int], is_a_choice: bool, expected: int
) -> None:
    ended = [Ended(Stage(str(number), (), 1), code, 1.0, "") for number, code in enumerate(codes)]
    assert sum_up(ended, 2.0, is_a_choice, Console(quiet=True)) == expected
