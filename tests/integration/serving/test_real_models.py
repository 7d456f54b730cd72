"""The HTTP front over real agents of tiny models: what a client gets is what the models make, in any batch."""

from __future__ import annotations

import base64
import concurrent.futures
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from mora_launch.config.train_config import load_config
from mora_launch.decoding.picture import read_picture
from mora_launch.decoding.video import read_video
from mora_launch.serving.http.app import make_app
from mora_launch.serving.running_servers import RunningServers
from mora_launch.tasks.media import encode, read_metadata
from mora_launch.web.access import Access
from starlette.testclient import TestClient

from .conftest import TINY

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
TOKEN = "a-token-of-the-user"


@pytest.fixture(scope="module")
def http(servers: RunningServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The front in this process."""
    run = tmp_path_factory.mktemp("front")
    app = make_app(servers.pool, load_config(TINY, []), run, Access({"token": TOKEN}, None, None))
    with TestClient(app, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.fixture
def api(http: TestClient) -> openai.OpenAI:
    return openai.OpenAI(base_url="http://testserver/v1", api_key=TOKEN, max_retries=0, http_client=http)


def completed(http: TestClient, identifier: str) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while (job := http.get(f"/v1/videos/{identifier}").json())["status"] in ("queued", "in_progress"):
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    assert job["status"] == "completed", job
    return dict(job)


def picture(http: TestClient, **body: Any) -> bytes:
    answer = http.post("/v1/images/generations", json=body)
    assert answer.status_code == 200, answer.text
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


def test_openais_client_makes_an_image_an_edit_and_a_video(http: TestClient, api: openai.OpenAI) -> None:
    made = api.images.generate(prompt="a red circle", model="mora", n=2, extra_body={"seed": 5}).data
    assert made is not None
    first, second = (base64.b64decode(each.b64_json or "") for each in made)
    assert first != second
    assert read_picture(first, "made").shape == (64, 64, 3)
    edited = api.images.edit(image=("a.png", first), prompt="in blue", model="mora").data
    assert edited is not None
    assert base64.b64decode(edited[0].b64_json or "") != first
    job = api.videos.create(prompt="a red circle moves", model="mora", seconds="2")  # type: ignore[call-overload]
    completed(http, job.id)
    video = read_video(api.videos.download_content(job.id).read(), "made", max_frames=100)
    assert video.frames.shape == (16, 64, 64, 3)


def test_the_same_seed_gives_the_same_bytes_alone_and_in_a_batch(http: TestClient, servers: RunningServers) -> None:
    alone = picture(http, prompt="a blue square", seed=11)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        crowd = [threads.submit(picture, http, prompt=f"number {n}", seed=n) for n in range(5)]
        again = [threads.submit(picture, http, prompt="a blue square", seed=11) for _ in range(5)]
        assert {each.result() for each in again} == {alone}
        assert len({each.result() for each in crowd}) == 5
    metrics = http.get("/metrics").text
    batches = float(metrics.split('mora_batch_size_count{capability="text_to_image"} ')[1].split()[0])
    samples = float(metrics.split('mora_batch_size_sum{capability="text_to_image"} ')[1].split()[0])
    assert samples > batches, "some were made together"


def test_an_uploaded_video_is_connected_with_another(http: TestClient) -> None:
    ends = [encode(np.full((6, 48, 80, 3), colour, dtype=np.uint8), 8.0, "mp4", {}) for colour in (220, 20)]
    parts = [("input_reference", (f"{number}.mp4", end)) for number, end in enumerate(ends)]
    answer = http.post("/v1/videos", data={"task": "connect", "prompt": "one becomes the other"}, files=parts)
    assert answer.status_code == 200, answer.text
    job = completed(http, answer.json()["id"])
    content = http.get(f"/v1/videos/{job['id']}/content").content
    frames = read_video(content, "made", max_frames=100).frames.astype(int)
    assert len(frames) == 6 + 3 + 6
    assert abs(frames[:6].mean() - 220) < 12
    assert abs(frames[-6:].mean() - 20) < 12
    assert read_metadata(content)["seed"] == job["seed"]
