"""Other local user: the TCP ports of a training job. Once its process groups exist, no process can connect to them."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mora_runtime.process import closed_listeners
from mora_runtime.process.closed_listeners import close_listeners

_USER = 1042
_GROUP = """
import sys, datetime, torch, torch.distributed as dist
from mora_runtime.process.closed_listeners import close_listeners
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=60))
other = dist.new_group([0, 1])
number = close_listeners()
for group in (None, other):
    for _ in range(20):
        value = torch.ones(1000) * (rank + 1)
        dist.all_reduce(value, group=group)
        assert float(value[0]) == 3.0
print("listeners", number, flush=True)
if rank == 0:
    sys.stdin.readline()
dist.barrier()
for _ in range(20):
    value = torch.ones(1 << 20)
    dist.all_reduce(value)
print("done", float(value[0]), flush=True)
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def knocks(port: int, *, as_another: bool) -> bool:
    """True if a process can connect to a port, as another user if this one may change its id."""
    program = (
        "import os, socket, sys\n"
        "knocking = socket.socket()\n"
        "knocking.settimeout(1.5)\n"
        f"if {as_another} and os.geteuid() == 0: os.setgroups([]); os.setgid({_USER}); os.setuid({_USER})\n"
        "try:\n"
        "    knocking.connect(('127.0.0.1', int(sys.argv[1])))\n"
        "except OSError:\n"
        "    sys.exit(3)\n"
    )
    code = subprocess.run([sys.executable, "-c", program, str(port)], check=False, timeout=60).returncode
    assert code in (0, 3)
    return code == 0


def listening_ports(pid: int) -> set[int]:
    """Ports on which a process listens, according to the kernel."""
    inodes = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def test_a_closed_listener_accepts_no_connection_and_existing_ones_continue(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert knocks(port, as_another=True)
    listener.accept()[0].close()
    with socket.create_connection(("127.0.0.1", port)) as ours, listener.accept()[0] as theirs:
        assert close_listeners() >= 1
        assert not knocks(port, as_another=True)
        assert not knocks(port, as_another=False)
        ours.settimeout(10)
        theirs.settimeout(10)
        for end, other in ((ours, theirs), (theirs, ours)):
            end.sendall(b"x" * 100_000)
            assert other.recv(1000, socket.MSG_WAITALL) == b"x" * 1000


def test_listeners_of_every_family_are_closed_and_other_sockets_stay_open(tmp_path: Path) -> None:
    before = close_listeners()
    with (
        socket.socket(socket.AF_INET6) as six, socket.socket(socket.AF_UNIX) as local, socket.socket() as idle,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
    ):  # fmt: skip
        six.bind(("::1", 0))
        six.listen()
        here = os.getcwd()
        os.chdir(tmp_path)
        local.bind("socket")
        local.listen()
        datagrams.bind(("127.0.0.1", 0))
        assert close_listeners() == before + 1
        assert close_listeners() == before + 1, "once more does no harm"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("socket")
        os.chdir(here)
        datagrams.sendto(b"x", datagrams.getsockname())
        datagrams.settimeout(5)
        assert datagrams.recv(10) == b"x"
        assert idle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0


def test_a_kernel_that_refuses_is_reported_once_and_the_job_continues(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> bool:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(closed_listeners, "_close", refuse)
    with caplog.at_level(logging.WARNING):
        assert close_listeners() == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the kernel refuses a filter" in caplog.text


@pytest.mark.timeout(180)
def test_a_group_of_two_works_and_no_other_process_can_connect(tmp_path: Path) -> None:
    members = [
        subprocess.Popen(
            [sys.executable, "-c", _GROUP, str(rank), str(tmp_path / "meeting")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for member in members:
            assert member.stdout is not None
            assert int(member.stdout.readline().split()[1]) >= 1
        for member in members:
            ports = listening_ports(member.pid)
            assert ports
            assert not [port for port in ports if knocks(port, as_another=True)]
        for member in members:
            output, _ = member.communicate("\n", timeout=100)
            assert output.strip() == "done 2.0"
    finally:
        for member in members:
            member.kill()
            member.communicate()
