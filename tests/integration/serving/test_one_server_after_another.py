"""A second `mora serve` beside the first: the same bytes, tight bounds, and its end from another terminal."""

from __future__ import annotations

import io
import subprocess

import pytest
from mora_launch.doctor import examine
from mora_launch.run_status import read_status
from mora_launch.status import show_status, stop_run
from rich.console import Console

from .conftest import ROOT, Serving

pytestmark = pytest.mark.timeout(300)


def said(show: object, serving: Serving, **options: object) -> str:
    """What a command about the server's run prints."""
    sink = io.StringIO()
    assert callable(show)
    show(serving.run, Console(file=sink, width=200), **options)
    return sink.getvalue()


def test_the_same_seed_gives_the_same_bytes_after_a_restart(serving: Serving, small: Serving) -> None:
    body = {"prompt": "a blue square", "seed": 11}
    before, after = (each.images(**body).json()["data"][0]["b64_json"] for each in (serving, small))
    assert before == after


def test_a_port_that_is_taken_is_refused_before_models_are_loaded(small: Serving) -> None:
    command = [str(ROOT / "mora"), "serve", "configs/tiny.yaml", "--port", str(small.port), "--run", str(small.run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout.strip() == (
        f"mora: --host 127.0.0.1 --port {small.port}: cannot be listened on: Address already in use"
    )


def test_a_server_is_looked_at_and_ended_from_another_terminal(small: Serving) -> None:
    status = read_status(small.run)
    assert (status.command, status.state, status.launcher_pid) == ("serve", "running", small.process.pid)
    roles = {role.role: role for role in status.roles}
    assert roles["image.0"].pid == small.server_process("image.0").pid
    assert all(role.state == "ready" and role.vitals["rss_nbytes"] > 1 << 20 for role in roles.values())
    shown = said(show_status, small, as_json=False)
    assert "serve: running, generation 1" in shown
    assert "waiting for calls" in shown
    assert "state: running" in said(examine, small)
    assert "stopped" in said(stop_run, small, now=False, timeout_s=60.0)
    assert small.process.wait(10) == 0
    assert "serve: finished" in said(show_status, small, as_json=False)
    assert "state: finished" in said(examine, small)
    assert "nothing runs there" in said(stop_run, small, now=False, timeout_s=60.0)
