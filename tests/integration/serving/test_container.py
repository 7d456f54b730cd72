"""`mora serve` as the only program of a container: PID 1, root read-only, no terminal, little /dev/shm, no /tmp."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from .conftest import ROOT, TOYS, UNBOUNDED, Serving, free_port

NEW_NAMESPACES = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount")
# $1 is the only folder that can be written; /tmp is remounted where it is a file system of its own
CONTAINER = """
set -e
mount --bind "$1" "$1"
mount -t tmpfs -o size=64k tmpfs /dev/shm
for folder in / /tmp; do if mountpoint -q "$folder"; then mount -o remount,bind,ro "$folder"; fi; done
shift
exec setsid "$@"
"""
pytestmark = pytest.mark.timeout(300)


def contained(folder: Path, *command: str) -> list[str]:
    """The command in a container in which it can write into the folder alone."""
    return [*NEW_NAMESPACES, "sh", "-c", CONTAINER, "sh", str(folder), *command]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="mora-box-", dir="/tmp") as path:
        check_containers(Path(path))
        yield Path(path)


def check_containers(folder: Path) -> None:
    """Skip the test where this machine makes no such container."""
    probe = contained(folder, "true")
    try:
        done = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("this machine has no unshare")
    if done.returncode != 0:
        pytest.skip(f"this machine allows no namespaces with file systems of their own: {done.stderr.strip()}")


def test_a_server_runs_in_a_container_and_ends_in_order(folder: Path) -> None:
    port = free_port()
    command = contained(folder, str(ROOT / "mora"), "serve", str(TOYS), "--port", str(port), "--run", f"{folder}/run")
    with open(folder / "serve.log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"HOME": "/nothing"}
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=UNBOUNDED) as client:
        serving = Serving(process, folder / "run", port, client)
        try:
            serving.wait_ready()
            (first,) = psutil.Process(process.pid).children()
            roots = Path(f"/proc/{first.pid}/mountinfo").read_text()
            assert any(line.split()[4:6][0] == "/" and line.split()[5].startswith("ro") for line in roots.splitlines())
            assert serving.images(prompt="a cat", seed=1).status_code == 200
            assert serving.content(serving.video(prompt="a cat", seed=1))[4:8] == b"ftyp"
            states = [each.status() for each in first.children(recursive=True)]
            assert len(states) > 3
            assert psutil.STATUS_ZOMBIE not in states
            first.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, (folder / "serve.log").read_text()
        finally:
            process.kill()
            process.wait(60)
