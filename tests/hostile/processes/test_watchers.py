"""Faulty child: servers stay watched, or the command fails with an error and ends all of them."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[3]
TOYS = ROOT / "tests" / "toy_agents" / "pair.yaml"
_PIDFD_GETFD = 438
# As a fault of the launcher's own would be: the next look at the children fails, once a file is there.
_BROKEN = """
import os, sys
from mora_runtime.process.supervisor import Supervisor
look = Supervisor.look
gone = Supervisor._gone
def broken(real):
    def call(self, **options):
        if os.path.exists({fault!r}):
            raise RuntimeError("evil \\x1b[2J fault")
        return real(self, **options)
    return call
Supervisor.look, Supervisor._gone = broken(look), broken(gone)
from mora_launch.cli import main
sys.argv = ["mora", *{words!r}]
main()
"""
pytestmark = pytest.mark.timeout(300)
Started = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def fault(tmp_path: Path) -> Path:
    """A file; once it exists, supervision fails."""
    return tmp_path / "fault"


@pytest.fixture
def started(tmp_path: Path, fault: Path) -> Iterator[Started]:
    """Starts a command of mora in its own process."""
    made: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        program = _BROKEN.format(fault=str(fault), words=words)
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        made.append(process)
        return process

    yield start
    for process in made:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], deadline_s: float = 200.0) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.1)


def ended(process: subprocess.Popen[str], children: list[psutil.Process]) -> str:
    """Output of a command that must end by itself, with exit code 1 and with all its processes."""
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 1, output
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert "\x1b" not in output
    return output


def test_a_failed_watcher_ends_serve(tmp_path: Path, started: Started, fault: Path) -> None:
    port = free_port()
    process = started("serve", str(TOYS), "--port", str(port), "--run", str(tmp_path / "run"))
    wait_for(lambda: is_ready(port), process)
    children = psutil.Process(process.pid).children(recursive=True)
    fault.touch()
    output = ended(process, children)
    assert "the servers can no longer be watched (RuntimeError: evil [2J fault)" in output
    assert "Traceback" not in output, "it is in the log"
    log = (tmp_path / "run" / "logs" / "front.1.jsonl").read_text()
    assert "RuntimeError" in log
    assert "running_servers.py" in log, "with the traceback"
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "no longer be watched" in status["cause"]


def test_a_failed_watcher_ends_generate(tmp_path: Path, started: Started, fault: Path) -> None:
    words = ("text-to-video", "--prompt", "a cat", "--seconds", "60", "--steps", "200", "--config", str(TOYS))
    process = started("generate", *words, "-o", str(tmp_path / "out.mp4"))
    mine = psutil.Process(process.pid)
    wait_for(lambda: len(mine.children(recursive=True)) >= 2, process)
    time.sleep(1)
    children = mine.children(recursive=True)
    fault.touch()
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 1, output
    assert "evil [2J fault" in output
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert not (tmp_path / "out.mp4").exists()


def test_failed_supervision_ends_training_with_the_cause(tmp_path: Path, started: Started, fault: Path) -> None:
    process = started("train", str(TOYS), "--run", str(tmp_path / "run"), "--set", "training.num_steps=50000")
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    children = psutil.Process(process.pid).children(recursive=True)
    fault.touch()
    output = ended(process, children)
    assert "mora: the job can be supervised no more (RuntimeError: evil [2J fault)" in output
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


def test_garbage_on_a_servers_link_restarts_only_that_server(tmp_path: Path, started: Started) -> None:
    port = free_port()
    process = started("serve", str(TOYS), "--port", str(port), "--run", str(tmp_path / "run"))
    wait_for(lambda: is_ready(port), process)

    def server() -> psutil.Process | None:
        found = psutil.Process(process.pid).children(recursive=True)
        return next((each for each in found if "/roles/image.0/" in command_of(each)), None)

    first = server()
    assert first is not None
    link = descriptor_of(first.pid, int(re.findall(r"--supervisor-fd (\d+)", command_of(first))[0]))
    os.write(link, b"not json\n")
    os.close(link)
    wait_for(lambda: (now := server()) is not None and now.pid != first.pid, process)
    wait_for(lambda: is_ready(port), process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert "image.0 sent invalid bytes on its link to the launcher (is not JSON" in output


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it is ending
        return ""


def descriptor_of(pid: int, number: int) -> int:
    """A copy of a descriptor of another process, as a debugger can make it."""
    pidfd = os.pidfd_open(pid)
    found = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, number, 0)
    os.close(pidfd)
    if found < 0:
        pytest.skip(f"no descriptor of another process can be taken here: {os.strerror(ctypes.get_errno())}")
    return int(found)
