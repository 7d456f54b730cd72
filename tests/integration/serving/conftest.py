"""The servers of all tests of this folder.

Toy agents behind `mora serve`, because most tests are about what surrounds models; and real agents of tiny models.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.serving.running_servers import RunningServers
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console

from .browser import Browser, started_browser

ROOT = Path(__file__).resolve().parents[3]
TINY = ROOT / "configs" / "tiny.yaml"
TOYS = ROOT / "tests" / "toy_agents" / "pair.yaml"
START_DEADLINE_S = 240.0
DEADLINE_S = 120.0  # for events that take seconds on an idle machine
# Threads share a client. With a bound on idle connections httpcore now and then closes one that it has just given to
# another thread, whose read then fails with "Bad file descriptor".
UNBOUNDED = httpx.Limits(max_connections=None, max_keepalive_connections=None)


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for a condition, which `what` describes."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited for {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.05)


@dataclass
class Serving:
    """A running server and a client of it."""

    process: subprocess.Popen[bytes]
    run: Path
    port: int
    http: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def server_process(self, role: str) -> psutil.Process:
        """The process of one role."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if f"/roles/{role}/" in " ".join(child.cmdline()):
                return child
        raise AssertionError(f"{role} has no process")

    def metric(self, name: str) -> float:
        """A metric, summed over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def images(self, **body: Any) -> httpx.Response:
        return self.http.post("/v1/images/generations", json=body)

    def video(self, files: list[tuple[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
        """Create a video and wait until it is completed."""
        data = {name: str(value) for name, value in fields.items()}
        answer = self.http.post("/v1/videos", data=data, files=files or [("none", (None, ""))][:0])
        assert answer.status_code == 200, answer.text
        return self.finished(answer.json()["id"])

    def finished(self, identifier: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while (job := self.http.get(f"/v1/videos/{identifier}").json())["status"] in ("queued", "in_progress"):
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        return dict(job)

    def content(self, job: dict[str, Any]) -> bytes:
        answer = self.http.get(f"/v1/videos/{job['id']}/content")
        assert answer.status_code == 200, answer.text
        return answer.content

    def candidate(self, identifier: str, stage: str) -> dict[str, Any]:
        """The review of a job, once this stage waits for a decision."""
        deadline = time.monotonic() + 60
        while True:
            review = self.http.get(f"/v1/videos/{identifier}/review").json()
            if review["candidate"] is not None and review["candidate"]["stage"] == stage:
                return dict(review)
            assert time.monotonic() < deadline, review

    def decide(self, identifier: str, stage: str, action: str) -> int:
        """Decide about a stage's candidate; returns the version of that candidate."""
        version = int(self.candidate(identifier, stage)["version"])
        body = {"version": version, "action": action}
        said = self.http.post(f"/v1/videos/{identifier}/review", json=body)
        assert said.status_code == 200, said.text
        return version

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            assert self.process.poll() is None, (self.run.parent / "serve.log").read_text()
            try:
                if self.http.get("/readyz").json()["ready"]:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            assert time.monotonic() < deadline, (self.run.parent / "serve.log").read_text()
            time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(folder: Path, *options: str, config: Path = TOYS) -> Serving:
    """Start `mora serve` without waiting for its models."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    log = open(folder / "serve.log", "wb")  # noqa: SIM115 - the process writes to it as long as it lives
    command = [str(ROOT / "mora"), "serve", str(config), "--port", str(port), "--run", str(folder / "run")]
    process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    log.close()
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=240, limits=UNBOUNDED)
    return Serving(process, folder / "run", port, client)


def start(folder: Path, *options: str, config: Path = TOYS) -> Serving:
    serving = launch(folder, *options, config=config)
    serving.wait_ready()
    return serving


def stop(serving: Serving) -> None:
    serving.http.close()
    if serving.process.poll() is None:
        serving.process.send_signal(signal.SIGTERM)
        serving.process.wait(60)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Another `mora serve`, with low limits."""
    bounds = ("max_waiting=2", "keep_videos_s=4", "max_upload_nbytes=1048576")
    started = start(tmp_path_factory.mktemp("small"), *(f"--set=serving.{bound}" for bound in bounds))
    try:
        yield started
    finally:
        stop(started)


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    started = start(
        tmp_path_factory.mktemp("serving"), "--set", "serving.servers.image=2", "--set", "serving.max_waiting=220"
    )
    try:
        yield started
    finally:
        stop(started)


def with_connector() -> TrainConfig:
    """The tiny models, and another video agent, the only one that connects videos, with clips of 5 frames."""
    video = yaml.safe_load(TINY.read_text())["agents"]["video"]
    connector = {key: video[key] for key in ("environment", "kind", "tiny_models")}
    connector |= {"options": video["options"] | {"num_frames": 5}, "capabilities": ["connect_videos"]}
    return load_config(TINY, [f"serving.agents.connector={json.dumps(connector)}"])


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServers]:
    """Real agents of tiny models."""
    with (
        RunDirectory.create(tmp_path_factory.mktemp("real") / "run", lock=True) as directory,
        RunningServers(with_connector(), directory, Console(quiet=True)) as running,
    ):
        yield running


@pytest.fixture
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Browser]:
    """A window of the size that the test gives."""
    with started_browser(tmp_path / "chromium", *request.param) as started:
        yield started
