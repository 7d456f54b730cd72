"""A video that is taken back while its frames are decoded frees the processors, whichever way its client leaves.

The tiny models make a clip of many frames in few steps, so that its decode takes most of its time.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from mora_launch.config.train_config import load_config
from mora_launch.serving.http.app import make_app
from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.serving.http.jobs.video_jobs import VideoJobs
from mora_launch.serving.life.http_thread import HttpThread
from mora_launch.serving.life.late_app import LateApp
from mora_launch.serving.running_servers import RunningServers
from mora_launch.web.access import Access
from mora_launch.web.http_server import http_server
from mora_launch.web.listening import bound
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console

from .conftest import TINY, UNBOUNDED, until
from .test_cancelled import idle_s, used_s

pytestmark = pytest.mark.timeout(600)
CLIP = {"num_frames": 65, "height": 128, "width": 128}
OPTIONS = CLIP | {"scheduler": "euler", "guidance_scale": 1.0}
CHANGES = [f"clip.{name}={value}" for name, value in CLIP.items()]
CHANGES += [f"agents.video.options.{name}={value}" for name, value in OPTIONS.items()]
BODY = {"prompt": "a cat", "seed": 1, "num_inference_steps": 2}
MOST_S = 5.0  # of processor time; a whole decode takes about 10 s, its longest block 2.5 s


@dataclass
class Decoding:
    """Servers, and HTTP in front of them on a real port."""

    servers: RunningServers
    jobs: VideoJobs
    http: httpx.Client

    def created(self) -> VideoJob:
        answer = self.http.post("/v1/videos", json=BODY)
        assert answer.status_code == 200, answer.text
        return self.jobs.get(answer.json()["id"])

    def wait_decoding(self) -> float:
        """Wait until the only job that runs decodes; return the processor time of all servers."""
        until(self._is_decoding, "the clip is being decoded")
        return used_s(self.servers)

    def _is_decoding(self) -> bool:
        (job,) = [job for job in self.jobs.all() if not job.has_ended] or [None]
        if job is None or job.stage != "segment 1" or not job.stages:
            return False
        stage = job.stages[-1]
        return 0 < stage.num_steps == stage.step


@pytest.fixture(scope="module")
def decoding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoding]:
    config = load_config(TINY, CHANGES)
    run = tmp_path_factory.mktemp("decoding") / "run"
    with (
        RunDirectory.create(run, lock=True) as directory,
        RunningServers(config, directory, Console(quiet=True)) as servers,
        bound("127.0.0.1", 0) as address,
    ):
        access = Access.at("127.0.0.1", None, run)
        late = LateApp(access)
        app = make_app(servers.pool, config, run, access)
        url = f"http://127.0.0.1:{address.getsockname()[1]}"
        with (
            HttpThread(http_server(late, grace_s=0), address, lambda: None),
            httpx.Client(base_url=url, timeout=240, limits=UNBOUNDED) as http,
        ):
            late.put(app)
            yield Decoding(servers, app.state.jobs, http)


def test_delete(decoding: Decoding) -> None:
    idle_s(decoding.servers)
    job = decoding.created()
    before_s = decoding.wait_decoding()
    assert decoding.http.delete(f"/v1/videos/{job.id}").status_code == 200
    assert idle_s(decoding.servers) - before_s < MOST_S
    assert job.status == "failed"


def test_hang_up(decoding: Decoding) -> None:
    idle_s(decoding.servers)
    content = json.dumps(BODY).encode()
    host, port = decoding.http.base_url.host, decoding.http.base_url.port
    head = f"POST /v1/videos/sync HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, port), timeout=60) as client:
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        before_s = decoding.wait_decoding()
    assert idle_s(decoding.servers) - before_s < MOST_S
    assert [job for job in decoding.jobs.all() if not job.has_ended] == []


def test_deadline(decoding: Decoding, monkeypatch: pytest.MonkeyPatch) -> None:
    idle_s(decoding.servers)
    job = decoding.created()
    decoding.wait_decoding()
    (worker,) = [worker for worker in decoding.servers.pool.workers if worker.agent == "video"]
    (batch,) = worker._in_flight
    monkeypatch.setattr(batch.pending, "_deadline", 0.0)  # it has passed
    before_s = used_s(decoding.servers)
    until(lambda: job.has_ended, "the job has ended")
    assert job.error is not None
    assert job.error["code"] == "deadline"
    assert idle_s(decoding.servers) - before_s < MOST_S


def test_what_is_not_taken_back_is_decoded_for_longer(decoding: Decoding) -> None:
    job = decoding.created()
    before_s = decoding.wait_decoding()
    until(lambda: used_s(decoding.servers) - before_s > MOST_S, "the decode continues")
    assert not job.has_ended
    decoding.http.delete(f"/v1/videos/{job.id}")
