"""A program without a launcher starts servers with another interpreter; they leave nothing when it ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from mora_runtime import spawn
from mora_runtime.errors import BadArgument, PeerDied, RoleFailed

ROOT = Path(__file__).resolve().parents[3]
HOST = """
import mora_runtime, torch
torch.manual_seed(0)
mora_runtime.host(net=torch.nn.Linear(4, 4), fixed=torch.nn.Tanh())
"""
SPAWNER = """
import sys, time, mora_runtime
peer = mora_runtime.spawn(sys.executable, sys.argv[1])
print(peer.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "host.py"
    path.write_text(HOST)
    return path


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder for the spawned runs of this test; its path is short enough for sockets.

    `tmp_path` comes first, so that pytest keeps its own folders elsewhere.
    """
    with tempfile.TemporaryDirectory(prefix="spawn", dir="/tmp") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + 30
    while not ended(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)


def test_the_example_reports_equal_gradients() -> None:
    command = [sys.executable, str(ROOT / "examples" / "two_environments.py"), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "gradients are equal"


def test_gradients_pass_through_two_spawned_servers_and_each_takes_a_step(script: Path, temporary: Path) -> None:
    torch.manual_seed(0)
    twin = torch.nn.Linear(4, 4)
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    with spawn(sys.executable, script) as first, spawn(sys.executable, script) as second:
        assert len(list(temporary.glob("mora-*"))) == 1, "both are of one run"
        pids = first.pid, second.pid
        for _ in range(2):
            here, there = x.clone().requires_grad_(), x.clone().requires_grad_()
            second.module("fixed")(first.module("net")(there)).sum().backward()
            torch.tanh(twin(here)).sum().backward()
            assert torch.equal(here.grad, there.grad)  # type: ignore[arg-type]
            first.step("net", lr=0.5)
            torch.optim.SGD(twin.parameters(), lr=0.5).step()
            twin.zero_grad()
        with pytest.raises(BadArgument, match="no parameter of the module requires a gradient"):
            second.step("fixed", lr=0.5)
    assert all(ended(pid) for pid in pids)
    assert not list(temporary.glob("mora-*"))


def test_a_killed_server_is_reported_at_the_next_call_and_others_continue(script: Path) -> None:
    with spawn(sys.executable, script) as doomed, spawn(sys.executable, script) as other:
        os.kill(doomed.pid, signal.SIGKILL)
        wait_until_ended(doomed.pid)
        with pytest.raises(PeerDied, match=r"spawned\.\d+"):
            doomed.module("net")(torch.ones(1, 4))
        assert other.module("net")(torch.ones(1, 4)).shape == (1, 4)


def test_a_server_ends_with_a_parent_that_is_killed_and_its_folder_with_the_next_spawn(
    script: Path, temporary: Path
) -> None:
    spawner = subprocess.Popen([sys.executable, "-c", SPAWNER, str(script)], stdout=subprocess.PIPE, text=True)
    assert spawner.stdout is not None
    pid = int(spawner.stdout.readline())
    (left,) = temporary.glob("mora-*")
    spawner.kill()
    spawner.wait(30)
    spawner.stdout.close()
    wait_until_ended(pid)
    with spawn(sys.executable, script):
        assert not left.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise SystemExit(7)", "ended by itself with exit code 7, before it was ready"),
        ("print('no call of host')", "ended by itself with exit code 0, before it was ready"),
        ("import time; time.sleep(60)", "not ready within 1 s"),
    ],
)
def test_a_script_that_does_not_serve_is_an_error_and_leaves_nothing(
    tmp_path: Path, temporary: Path, text: str, message: str
) -> None:
    path = tmp_path / "host.py"
    path.write_text(text)
    with pytest.raises(RoleFailed, match=message):
        spawn(sys.executable, path, deadline_s=1 if "sleep" in text else 120)
    assert not list(temporary.glob("mora-*"))
