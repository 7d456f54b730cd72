"""As PID 1 of a container the command runs in a child; PID 1 passes signals on and collects orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence

import pytest
from mora_launch.container.first_process import become_child_of_first_process

DEADLINE_S = 60.0
NEW_NAMESPACE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")


def can_unshare() -> bool:
    try:
        return (
            subprocess.run([*NEW_NAMESPACE, "true"], capture_output=True, timeout=DEADLINE_S, check=False).returncode
            == 0
        )
    except FileNotFoundError:
        return False


needs_namespace = pytest.mark.skipif(not can_unshare(), reason="this machine allows no new PID namespace (unshare)")


def as_first_process(program: str) -> list[str]:
    head = "from mora_launch.container.first_process import become_child_of_first_process as child; child()\n"
    return [*NEW_NAMESPACE, sys.executable, "-c", head + textwrap.dedent(program)]


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_another_process_than_the_first_goes_on_itself() -> None:
    before = os.getpid()
    become_child_of_first_process()
    assert os.getpid() == before


@needs_namespace
def test_orphans_are_collected() -> None:
    done = run(
        as_first_process(
            """
            import os, subprocess, time
            orphan = int(subprocess.run(["sh", "-c", "sleep 0.1 & echo $!"], capture_output=True, text=True).stdout)
            deadline = time.monotonic() + 30
            while os.path.exists(f"/proc/{orphan}") and time.monotonic() < deadline:
                time.sleep(0.01)
            print(os.getppid(), os.path.exists(f"/proc/{orphan}"))
            """
        )
    )
    assert (done.stdout, done.returncode) == ("1 False\n", 0), done.stderr


@needs_namespace
@pytest.mark.parametrize(
    ("program", "code"),
    [("raise SystemExit(7)", 7), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL)],
)
def test_the_exit_code_is_that_of_the_command(program: str, code: int) -> None:
    assert run(as_first_process(program)).returncode == code


@needs_namespace
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(number: signal.Signals) -> None:
    done = run(
        as_first_process(
            f"""
            import os, signal
            signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])
            os.kill(1, {int(number)})
            print(signal.sigtimedwait([{int(number)}], 30).si_pid)
            os.kill(1, {int(number)})
            signal.signal({int(number)}, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [{int(number)}])
            signal.sigtimedwait([signal.SIGCHLD], 30)
            """
        )
    )
    assert (done.stdout, done.returncode) == ("1\n", 128 + number), done.stderr
