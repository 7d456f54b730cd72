"""A request that is taken back stops using processors: shown by the servers' processor time, files and metrics."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from mora_launch.config.train_config import load_config
from mora_launch.serving.http.app import make_app
from mora_launch.serving.running_servers import RunningServers
from mora_launch.web.access import Access
from starlette.testclient import TestClient

from .conftest import DEADLINE_S, TINY, Serving, until

pytestmark = pytest.mark.timeout(300)
TOKEN = "a-token-of-the-user"
LONG = {"prompt": "a cat", "seconds": 30, "num_inference_steps": 200, "seed": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("front")


@pytest.fixture(scope="module")
def http(servers: RunningServers, run: Path) -> Iterator[TestClient]:
    """A front that lets one video job work at a time."""
    config = load_config(TINY, ["serving.max_video_jobs=1"])
    app = make_app(servers.pool, config, run, Access({"token": TOKEN}, None, None))
    with TestClient(app, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def created(http: TestClient, body: dict[str, object]) -> str:
    answer = http.post("/v1/videos", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def job(http: TestClient, identifier: str) -> dict[str, object]:
    return dict(http.get(f"/v1/videos/{identifier}").json())


def used_s(servers: RunningServers) -> float:
    """Processor time of all servers."""
    times = [psutil.Process(child.process.pid).cpu_times() for child in servers._children.values()]
    return sum(each.user + each.system for each in times)


def idle_s(servers: RunningServers) -> float:
    """Wait until the servers use less than a tenth of a core for half a second; return their processor time then."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        before_s, started_s = used_s(servers), time.monotonic()
        time.sleep(0.5)  # the interval of the measurement
        after_s = used_s(servers)
        if after_s - before_s < 0.1 * (time.monotonic() - started_s):
            return after_s
        assert time.monotonic() < deadline, "the servers still compute"


def test_a_deleted_video_stops_the_servers_within_a_step_and_leaves_no_file(
    http: TestClient, servers: RunningServers, run: Path
) -> None:
    idle_s(servers)
    first = created(http, LONG)
    until(
        lambda: job(http, first)["stage"] == "segment 1" and int(str(job(http, first)["progress"])) >= 1,
        "a clip is being made",
    )
    second = created(http, {"prompt": "a dog", "num_inference_steps": 4, "seed": 1})
    assert job(http, second)["status"] == "queued", "one job works at a time"
    http.delete(f"/v1/videos/{second}")
    before_s = used_s(servers)
    assert http.delete(f"/v1/videos/{first}").json()["deleted"]
    spent_s = idle_s(servers) - before_s
    assert spent_s < 3.0, "the whole video takes minutes"
    assert http.delete(f"/v1/videos/{first}").status_code == 404
    third = created(http, {"prompt": "a dog", "num_inference_steps": 4, "seed": 1})
    until(lambda: job(http, third)["status"] == "completed", "the third video is made")
    left = {path.name.partition(".")[0] for path in (run / "videos").iterdir()}
    assert {first, second} & left == set(), "the files of deleted jobs"
    assert third in left


@pytest.mark.parametrize("stream", [False, True], ids=["one answer", "a stream"])
def test_a_client_that_leaves_takes_its_pictures_back(serving: Serving, stream: bool) -> None:
    before = serving.metric("mora_cancelled_total")
    body = {"prompt": "a cat", "n": 8, "num_inference_steps": 1000, "seed": 1, "stream": stream}
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.Client(base_url=serving.url) as client,
        client.stream("POST", "/images/generations", json=body, timeout=0.5) as answer,
    ):
        next(answer.iter_bytes())
    until(lambda: serving.metric("mora_cancelled_total") - before == 8, "all pictures are taken back")
    until(lambda: serving.metric("mora_requests_under_way") == 0, "the requests have ended")


def test_a_video_that_is_deleted_in_the_queue_or_twice_is_gone(serving: Serving) -> None:
    body = {"prompt": "a cat", "num_inference_steps": 1000, "seed": 1}
    jobs = [serving.http.post("/v1/videos", json=body).json()["id"] for _ in range(6)]
    for identifier in reversed(jobs):
        assert serving.http.delete(f"/v1/videos/{identifier}").status_code == 200
        assert serving.http.delete(f"/v1/videos/{identifier}").status_code == 404
    until(lambda: serving.metric("mora_requests_under_way") == 0, "the requests have ended")
    names = [path.name for path in (serving.run / "videos").iterdir()]
    assert not [name for name in names if name.startswith(tuple(jobs))]
