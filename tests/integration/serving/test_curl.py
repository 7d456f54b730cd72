"""What a shell script with curl does, from the first request to the last file; only the standard programs are used."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_launch.decoding.video import read_video
from mora_launch.tasks.media import encode
from PIL import Image

from tests.toy_agents.options import NUM_FRAMES, SIDE

from .conftest import Serving

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]
JSON = ("-H", "Content-Type: application/json")


@dataclass
class Answer:
    """What curl printed and saved."""

    status: int
    kind: str
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@pytest.fixture
def curl(serving: Serving, tmp_path: Path) -> Callable[..., Answer]:
    """Runs `curl WORDS URL`."""

    def run(path: str, *words: str) -> Answer:
        file = tmp_path / "answer"
        file.unlink(missing_ok=True)
        url = path if path.startswith("http") else f"{serving.url}{path}"
        form = ("-sS", "-o", str(file), "-w", "%{http_code} %{content_type}", "--max-time", "120")
        told = subprocess.run(["curl", *form, *words, url], capture_output=True, text=True, check=True, timeout=150)
        status, _, kind = told.stdout.partition(" ")
        return Answer(int(status), kind, file.read_bytes() if file.exists() else b"")

    return run


def polled(curl: Callable[..., Answer], identifier: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while (job := curl(f"/videos/{identifier}").json)["status"] in ("queued", "in_progress"):
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return dict(job)


def test_a_video_from_its_request_to_its_deletion(curl: Callable[..., Answer], serving: Serving) -> None:
    body = {"prompt": "a red circle moves left", "seed": 3, "num_frames": 9}
    made = curl("/videos", *JSON, "-d", json.dumps(body))
    assert (made.status, made.json["status"] in ("queued", "in_progress")) == (200, True), made.content
    job = polled(curl, made.json["id"])
    assert (job["status"], job["progress"]) == ("completed", 100)
    content = curl(f"/videos/{job['id']}/content")
    assert (content.status, content.kind) == (200, "video/mp4")
    assert len(read_video(content.content, "made", max_frames=100).frames) == 9
    at_once = curl("/videos/sync", *JSON, "-d", json.dumps(body))
    assert (at_once.status, at_once.content) == (200, content.content)
    assert curl(f"/videos/{job['id']}/content", "-r", "4-7").content == b"ftyp"
    for path in (
        f"/videos/{job['id']}/content",
        f"/videos/{job['id']}",
        "/videos",
        "/models",
        "/models/mora",
        "/tasks",
    ):
        assert curl(path, "-I").status == 200, path
    thumbnail = curl(f"/videos/{job['id']}/content?variant=thumbnail")
    assert thumbnail.kind == "image/png"
    sheet = curl(f"/videos/{job['id']}/content?variant=spritesheet")
    assert sheet.kind == "image/jpeg"
    assert Image.open(io.BytesIO(sheet.content)).size == (4 * SIDE, 3 * SIDE)
    assert curl(f"/videos/{job['id']}", "-X", "DELETE").json["deleted"]
    assert curl(f"/videos/{job['id']}").status == 404


def test_a_finished_video_is_remixed_extended_and_edited(curl: Callable[..., Answer], tmp_path: Path) -> None:
    first = polled(curl, curl("/videos", *JSON, "-d", '{"prompt": "a red circle"}').json["id"])
    remixed = curl(f"/videos/{first['id']}/remix", *JSON, "-d", '{"prompt": "in blue"}')
    assert (remixed.status, remixed.json["remixed_from_video_id"]) == (200, first["id"])
    longer = curl("/videos/extensions", *JSON, "-d", json.dumps({"prompt": "on", "video": {"id": first["id"]}}))
    (tmp_path / "clip.mp4").write_bytes(encode(np.zeros((6, 48, 48, 3), np.uint8), 8.0, "mp4", {}))
    edited = curl("/videos/edits", "-F", "prompt=in green", "-F", f"video=@{tmp_path / 'clip.mp4'}")
    for answer, task, num_frames in ((remixed, "edit", 5), (longer, "extend", 2 * NUM_FRAMES - 1), (edited, "edit", 6)):
        assert answer.status == 200, answer.content
        job = polled(curl, answer.json["id"])
        assert (job["status"], job["task"]) == ("completed", task)
        made = curl(f"/videos/{job['id']}/content").content
        assert len(read_video(made, "made", max_frames=100).frames) == num_frames


def test_a_script_that_gives_up_takes_its_video_back(curl: Callable[..., Answer], serving: Serving) -> None:
    def num_cancelled() -> float:
        lines = serving.http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("mora_cancelled_total"))

    before = num_cancelled()
    body = json.dumps({"prompt": "given up", "num_inference_steps": 1000, "enhance": False})
    words = ["curl", "-sS", "--max-time", "1", *JSON, "-d", body, f"{serving.url}/videos/sync"]
    assert subprocess.run(words, capture_output=True, check=False, timeout=60).returncode == 28, "curl has timed out"
    deadline = time.monotonic() + 60
    while num_cancelled() == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "given up" not in [job["prompt"] for job in curl("/videos?limit=100").json["data"]]


def test_every_address_that_is_read_also_answers_head(serving: Serving) -> None:
    paths = serving.http.get("/openapi.json").json()["paths"]
    read = [re.sub(r"\{\w+\}", "none", path) for path, methods in paths.items() if "get" in methods]
    assert {"/v1/models", "/v1/videos/none/content", "/readyz"} <= set(read)
    for path in read:
        head, whole = serving.http.head(path), serving.http.get(path)
        assert (head.status_code, head.content) == (whole.status_code, b""), path


def test_the_list_is_read_page_by_page_to_its_end(curl: Callable[..., Answer]) -> None:
    made = [curl("/videos", *JSON, "-d", '{"prompt": "a cat"}').json["id"] for _ in range(5)]
    found: list[str] = []
    page = curl("/videos?limit=2").json
    while page["has_more"]:
        found += [job["id"] for job in page["data"]]
        page = curl(f"/videos?limit=2&after={page['last_id']}").json
    found += [job["id"] for job in page["data"]]
    assert [each for each in found if each in made] == made[::-1]
    assert len(found) == len(set(found))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_in_three_formats(curl: Callable[..., Answer], kind: str) -> None:
    body = {"prompt": "a red circle", "response_format": "url", "output_format": kind}
    made = curl("/images/generations", *JSON, "-d", json.dumps(body))
    assert made.status == 200, made.content
    picture = curl(made.json["data"][0]["url"])
    assert (picture.status, picture.kind) == (200, f"image/{kind}")
    with Image.open(io.BytesIO(picture.content)) as opened:
        assert (opened.format, opened.size) == (kind.upper(), (SIDE, SIDE))


def test_a_review_is_decided(curl: Callable[..., Answer]) -> None:
    job = curl("/videos", *JSON, "-d", '{"prompt": "a red circle", "enhance": false, "review": true}').json["id"]
    for stage in ("image", "segment 1"):
        deadline = time.monotonic() + 60
        while ((review := curl(f"/videos/{job}/review").json)["candidate"] or {}).get("stage") != stage:
            assert time.monotonic() < deadline, review
            time.sleep(0.1)
        decision = json.dumps({"version": review["version"], "action": "accept"})
        assert curl(f"/videos/{job}/review", *JSON, "-d", decision).status == 200
    assert polled(curl, job)["status"] == "completed"


@pytest.mark.parametrize(
    ("path", "words", "status", "said"),
    [
        ("/videos", ("-d", '{"prompt": "a"}'), 400, "send Content-Type: application/json"),
        ("/videos", (*JSON, "-d", '{"prompt": "a", "sede": 1}'), 400, "sede: unknown field; did you mean `seed`?"),
        ("/videos", (*JSON, "-d", '{"prompt": "a", "size": "33x32"}'), 400, "got 33x32; the nearest is 32x32"),
        ("/videos", (*JSON, "-d", '{"prompt": "a", "seconds": 1.3}'), 400, "the nearest lengths are 1.25 and 1.375"),
        ("/videos", (*JSON, "-d", "{"), 400, "body: is not JSON"),
        ("/videos/edits", (*JSON, "-d", '{"prompt": "a"}'), 400, "video: edit needs 1 video(s), got 0"),
        ("/videos/none/remix", (*JSON, "-d", '{"prompt": "a"}'), 404, "video_id: no video `none`"),
        ("/videos/none/content", (), 404, "video_id: no video `none`"),
        ("/images/files/none", (), 404, "name: no picture `none`; it is unknown or has expired"),
        ("/videos", ("-X", "PUT"), 405, "PUT /v1/videos: Method Not Allowed"),
    ],
)
def test_an_error_names_the_field_and_what_to_do(
    curl: Callable[..., Answer], path: str, words: tuple[str, ...], status: int, said: str
) -> None:
    answer = curl(path, *words)
    assert answer.status == status, answer.content
    assert said in answer.json["error"]["message"]
