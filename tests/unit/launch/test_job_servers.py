"""Servers that outlive their clients: which start once, which start again, and where Ctrl-C arrives."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.jobs import job_servers
from mora_launch.jobs.job_servers import JobServers
from mora_launch.rounds.judging.judge_device import needs_device_of_agents
from mora_launch.rounds.settings import JudgeSettings, LocalModelSettings
from mora_runtime import RunDirectory
from mora_runtime.errors import RoleFailed
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.supervisor import RolesEnded, Supervisor
from rich.console import Console

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.timeout(60)
# Reports ready, sends heartbeats, creates a file when all are sent, and lives until it is stopped.
SERVER = """
import socket, sys
link = socket.socket(fileno=int(sys.argv[-1]))
link.sendall(b'{"event": "ready"}\\n')
link.sendall(b'{"event": "beat", "vitals": {}}\\n' * int(sys.argv[2]))
open(sys.argv[1], "w").close()
while (word := link.recv(100)) and b"stop" not in word:
    pass
"""


class FakeGroup:
    """Starts processes that load no model."""

    num_beats = 1

    def __init__(self, config: TrainConfig, _checked: object, directory: RunDirectory, *, traces: object) -> None:
        self._directory = directory
        self.roles = [f"{name}.{r}" for r in range(config.replicas) for name in ("image", "video")]
        self.started: list[tuple[str, int]] = []

    def start(self, supervisor: Supervisor, attempt: int, generation: int, roles: Sequence[str]) -> list[RoleProcess]:
        self.started += [(role, generation) for role in roles]
        return [self._start_one(supervisor, role, generation) for role in roles]

    def _start_one(self, supervisor: Supervisor, role: str, generation: int) -> RoleProcess:
        sent = self._directory.path / f"{role}.{generation}.sent"
        return supervisor.start(
            role, [sys.executable, "-c", SERVER, str(sent), str(self.num_beats)],
            variables={}, output=None, folder=ROOT, generation=generation,
        )  # fmt: skip


class Job:
    """Opened servers, and a list of the started ones."""

    def __init__(self, servers: JobServers, run: Path) -> None:
        self.servers = servers
        self.run = run

    @property
    def started(self) -> list[tuple[str, int]]:
        group = self.servers._group
        assert isinstance(group, FakeGroup)
        return group.started

    def start(self) -> None:
        self.servers.start()
        assert self.servers.wait_ready()

    def pid(self, role: str) -> int:
        return next(server.process.pid for server in self.servers._servers if server.role == role)


Opener = Callable[..., AbstractContextManager[Job]]


@pytest.fixture
def open_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    monkeypatch.setattr(job_servers, "ServerGroup", FakeGroup)
    monkeypatch.setattr(job_servers, "place", lambda *_: [])
    with RunDirectory.create(tmp_path / "run", lock=True) as directory:

        @contextmanager
        def open_(*changes: str) -> Iterator[Job]:
            config = load_config(ROOT / "configs" / "tiny-rounds.yaml", changes)
            with JobServers(config, {}, directory, Console(quiet=True)) as servers:
                yield Job(servers, directory.path)

        yield open_


def commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the run has a checkpoint."""
    monkeypatch.setattr(job_servers, "committed", lambda _: SimpleNamespace(step=4))


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20.0
    while not is_true():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def kill_beside_a_worker(job: Job, role: str) -> None:
    """Kill a server while a worker runs, and begin the next generation as a job does."""
    with job.servers.attended() as supervisor:
        worker = supervisor.start(
            "worker", [sys.executable, "-c", SERVER, os.devnull, "1"], variables={}, output=None, folder=ROOT
        )
        os.kill(job.pid(role), signal.SIGKILL)
        with pytest.raises(RolesEnded) as caught:
            supervisor.wait_finished([worker])
        job.servers.take_restart(caught.value)
        job.servers.begin_generation([worker])


def test_servers_start_once_for_all_workers_and_end_with_the_job(open_job: Opener) -> None:
    with open_job() as job:
        for _ in range(3):
            with job.servers.attended():
                job.start()
        assert job.started == [("image.0", 1), ("video.0", 1)]
        pids = [job.pid("image.0"), job.pid("video.0")]
    assert not any(map(psutil.pid_exists, pids))


def test_with_a_single_replica_only_the_dead_server_restarts(open_job: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(monkeypatch)
    with open_job() as job:
        job.start()
        job.servers.are_untouched = False
        kill_beside_a_worker(job, "image.0")
        job.start()
        assert job.started[2:] == [("image.0", 2)]
        assert not job.servers.are_untouched, "video.0 has the weights that a worker gave it"


@pytest.mark.parametrize("replicas", [1, 2])
def test_without_a_checkpoint_or_with_several_replicas_all_servers_restart(
    open_job: Opener, monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    if replicas > 1:
        commit(monkeypatch)
    with open_job(f"replicas={replicas}") as job:
        job.start()
        attempt = job.servers.attempt
        job.servers.are_untouched = False
        kill_beside_a_worker(job, "image.0")
        job.start()
        assert [generation for _, generation in job.started] == [1] * 2 * replicas + [2] * 2 * replicas
        assert job.servers.are_untouched
        assert job.servers.attempt > attempt


def test_a_death_that_no_worker_saw_also_counts_against_the_restart_budget(
    open_job: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(monkeypatch)
    with open_job("restarts.max_num=1") as job:
        job.start()
        job.servers.replace_dead()
        with job.servers.attended():
            pass  # from here on a thread watches
        pid = job.pid("video.0")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(pid))  # the thread has collected it
        job.servers.replace_dead()
        job.start()
        assert job.started[2:] == [("video.0", 2)]
        os.kill(job.pid("video.0"), signal.SIGKILL)
        wait_until(lambda: job.servers._servers[-1].process.poll() is not None)
        with pytest.raises(RoleFailed, match=r"(?s)video\.0 was killed by SIGKILL, between two parts.*1 of 1 restarts"):
            job.servers.replace_dead()


def test_servers_are_replaced_by_fresh_ones_only_if_a_worker_may_have_changed_them(open_job: Opener) -> None:
    with open_job() as job:
        job.start()
        job.servers.require_untouched()
        job.start()
        assert len(job.started) == 2
        pid = job.pid("image.0")
        job.servers.are_untouched = False
        job.servers.require_untouched()
        assert not psutil.pid_exists(pid)
        job.start()
        assert job.started[2:] == [("image.0", 2), ("video.0", 2)]


def test_heartbeats_are_read_while_the_launcher_is_busy(open_job: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeGroup, "num_beats", 20_000)  # three times as many as the socket holds
    with open_job() as job:
        with job.servers.attended():
            job.start()
        for role in ("image.0", "video.0"):
            wait_until((job.run / f"{role}.1.sent").exists)


def test_ctrl_c_is_counted_while_waiting_for_children_and_raises_otherwise(open_job: Opener) -> None:
    before = signal.getsignal(signal.SIGINT)
    with open_job() as job:
        with job.servers.attended() as supervisor:
            job.start()
            os.kill(os.getpid(), signal.SIGINT)
            wait_until(lambda: supervisor.num_interrupts == 1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with Supervisor(print):  # as a local judge has
            pass
        with job.servers.attended() as supervisor:
            os.kill(os.getpid(), signal.SIGINT)
            wait_until(lambda: supervisor.num_interrupts == 2)
    assert signal.getsignal(signal.SIGINT) is before


def test_only_a_judge_on_a_gpu_of_an_agent_needs_its_device() -> None:
    path = ROOT / "configs" / "tiny-rounds.yaml"
    config = load_config(path, ["agents.image.devices=['cuda:0']", "agents.video.devices=['cuda:1']"])

    def needs(device: str) -> bool:
        local = LocalModelSettings(model="judge", device=device)
        return needs_device_of_agents(JudgeSettings(kind="local", local=local), config)

    assert [needs(device) for device in ("cuda:0", "cuda:1", "cuda", "cuda:2", "cpu")] == [True] * 3 + [False] * 2
    assert not needs_device_of_agents(JudgeSettings(), config)
    on_cpu = load_config(path, [])
    local = LocalModelSettings(model="judge", device="cpu")
    assert not needs_device_of_agents(JudgeSettings(kind="local", local=local), on_cpu)
