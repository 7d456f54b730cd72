"""The parts of a server's end: signals, the thread of HTTP, the service manager, and the line on the terminal."""

from __future__ import annotations

import io
import os
import signal
import socket
import threading
import urllib.request
from http.client import IncompleteRead
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mora_launch.serving.life import temporary_folder
from mora_launch.serving.life.drain import Drain
from mora_launch.serving.life.drained import wait_drained
from mora_launch.serving.life.end_signals import EndSignals, Interrupted
from mora_launch.serving.life.http_thread import HttpThread
from mora_launch.serving.life.service_manager import tell_manager
from mora_launch.web.http_server import http_server
from mora_launch.web.listening import bound
from mora_runtime.errors import RoleFailed
from rich.console import Console

DEADLINE_S = 30.0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_interrupts_while_models_load(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as raised, EndSignals() as signals:
        signals._take(number, None)
    assert raised.value.exit_code == code
    assert signal.getsignal(number) is before


def test_later_a_signal_ends_the_wait_alone() -> None:
    with EndSignals() as signals:
        signals.interrupts = False
        os.kill(os.getpid(), signal.SIGTERM)
        signals.wait(DEADLINE_S)
        os.kill(os.getpid(), signal.SIGINT)
        signals.wait(DEADLINE_S)
        assert signals.received == [signal.SIGTERM, signal.SIGINT]
        signals.wait(0.0)


def test_any_thread_ends_the_wait() -> None:
    with EndSignals() as signals:
        threading.Thread(target=signals.wake).start()
        signals.wait()
        assert signals.received == []


def drained(left: list[int], timeout_s: float = DEADLINE_S, num_signals: int = 1) -> tuple[Drain, str]:
    """Wait for videos, whose number at each look is the next of `left`; returns what was printed."""

    class Jobs:
        num_left = property(lambda _: left.pop(0) if len(left) > 1 else left[0])

    jobs: Any = Jobs()
    front: Any = SimpleNamespace(drain=Drain())
    sink = io.StringIO()
    with EndSignals() as signals:
        signals.received = [signal.SIGTERM] * num_signals
        wait_drained(front, jobs, signals, timeout_s, Console(file=sink, width=200))
    return front.drain, sink.getvalue()


def test_the_terminal_says_what_is_waited_for() -> None:
    drain, said = drained([2, 1, 0])
    assert drain.has_begun
    assert said.splitlines() == [
        "stopping: waiting up to 30 s for 2 videos; signal again to end at once", "all work is done"
    ]  # fmt: skip
    assert drained([0])[1] == ""


def test_the_terminal_says_what_was_not_done() -> None:
    assert drained([1], timeout_s=0.2)[1].splitlines()[-1] == "not done within 0.2 s: 1 video"


def test_another_signal_ends_the_wait_for_work() -> None:
    with pytest.raises(Interrupted, match="ended at once; not done: 1 video") as raised:
        drained([1], num_signals=2)
    assert raised.value.exit_code == 143


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def test_http_is_answered_in_a_thread_until_it_is_stopped() -> None:
    ended = threading.Event()
    with bound("127.0.0.1", 0) as address:
        port = address.getsockname()[1]
        with HttpThread(http_server(hello, grace_s=0), address, ended.set) as http:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE_S) as answer:
                assert answer.read() == b"hello"
            http.check()
            assert not ended.is_set()
            http.stop(5.0)
            assert ended.is_set()
            with pytest.raises(RoleFailed, match="the HTTP server has failed"):
                http.check()


def test_an_urgent_end_cuts_off_an_answer_that_is_being_sent() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await hello(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    with bound("127.0.0.1", 0) as address:
        url = f"http://127.0.0.1:{address.getsockname()[1]}/"
        with HttpThread(http_server(endless, grace_s=0), address, lambda: None) as http:
            answer = urllib.request.urlopen(url, timeout=DEADLINE_S)
            assert answer.read1() == b"begun"
            http.stop(1e6, is_urgent=lambda: True)
            with pytest.raises((OSError, IncompleteRead)):
                answer.read()
            answer.close()


def test_an_http_server_that_cannot_start_is_an_error() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": ""})

    with bound("127.0.0.1", 0) as address, pytest.raises(RoleFailed, match="the HTTP server has failed"):
        HttpThread(http_server(broken, grace_s=0), address, lambda: None).__enter__()


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool) -> None:
    name = f"@mora-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(DEADLINE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        tell_manager("READY=1")
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1", "/nothing/here"])
def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    tell_manager("READY=1")


def test_temporary_files_are_in_the_run_where_no_other_folder_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> str:
        raise FileNotFoundError

    monkeypatch.setenv("TMPDIR", "/nothing/here")
    monkeypatch.setattr(temporary_folder.tempfile, "tempdir", None)
    monkeypatch.setattr(temporary_folder.tempfile, "gettempdir", refuse)
    temporary_folder.ensure_temporary_folder(tmp_path)
    assert os.environ["TMPDIR"] == temporary_folder.tempfile.tempdir == str(tmp_path / "tmp")
    assert (tmp_path / "tmp").stat().st_mode & 0o777 == 0o700
