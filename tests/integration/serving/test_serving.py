"""`mora serve` of toy agents: OpenAI's client, six tasks, bad input, same bytes, deaths."""

from __future__ import annotations

import base64
import concurrent.futures
import http.client
import io
import time
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from mora_launch.decoding.picture import read_picture
from mora_launch.decoding.video import read_video
from mora_launch.jobs.run_status import read_status
from mora_launch.tasks.media import encode, png, read_metadata
from mora_launch.tasks.request import TASKS
from PIL import Image

from tests.toy_agents.options import NUM_FRAMES, SIDE

from .conftest import Serving

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
PICTURE = png(np.full((80, 120, 3), 90, dtype=np.uint8))


def clip(colour: int, num_frames: int = 6) -> bytes:
    frames = np.zeros((num_frames, 48, 80, 3), dtype=np.uint8)
    frames[..., 0] = colour
    frames[:, :, :, 1] = np.arange(num_frames, dtype=np.uint8)[:, None, None] * 20
    return encode(frames, 8.0, "mp4", {})


def client(serving: Serving) -> openai.OpenAI:
    return openai.OpenAI(base_url=serving.url, api_key="none", max_retries=0)


def picture(serving: Serving, **body: Any) -> str:
    answer = serving.images(**body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"][0]["b64_json"])


def test_openais_client_makes_an_image_an_edit_and_a_video(serving: Serving) -> None:
    api = client(serving)
    assert [model.id for model in api.models.list()] == ["mora", "image", "video", "source", "last"]
    assert api.models.retrieve("video").id == "video"
    with pytest.raises(
        openai.NotFoundError, match="model: expected one of mora, image, video, source, last, got sora-2"
    ):
        api.models.retrieve("sora-2")
    made = api.images.generate(prompt="a red circle", model="mora", n=2, extra_body={"seed": 5}).data
    assert made is not None
    assert made[0].b64_json != made[1].b64_json
    first = base64.b64decode(made[0].b64_json or "")
    assert read_picture(first, "made").shape == (SIDE, SIDE, 3)
    edited = api.images.edit(image=("a.png", first), prompt="in blue", model="mora").data
    assert edited is not None
    assert edited[0].b64_json != made[0].b64_json
    job = api.videos.create(prompt="a red circle moves", model="mora", seconds="2")  # type: ignore[call-overload]
    assert serving.finished(job.id)["status"] == "completed"
    video = read_video(api.videos.download_content(job.id).read(), "made", max_frames=100)
    assert video.frames.shape == (16, SIDE, SIDE, 3)
    assert job.id in [each.id for each in api.videos.list()]
    assert api.videos.delete(job.id).deleted
    with pytest.raises(openai.NotFoundError, match="it is unknown or deleted"):
        api.videos.retrieve(job.id)


@pytest.mark.parametrize(
    ("task", "files", "num_frames"),
    [
        ("text_to_video", [], NUM_FRAMES),
        ("image_to_video", [PICTURE], NUM_FRAMES),
        ("extend", [clip(200)], 6 + NUM_FRAMES - 1),
        ("edit", [clip(200)], 6),
        ("connect", [clip(200), clip(40)], 6 + NUM_FRAMES - 2 + 6),
        ("simulate", [], NUM_FRAMES),
        ("simulate", [clip(200)], 6),
    ],
)
def test_every_task_makes_a_video(serving: Serving, task: str, files: list[bytes], num_frames: int) -> None:
    parts = [("input_reference", ("file", content)) for content in files]
    job = serving.video(parts, task=task, prompt="a red circle moves left", seed=3)
    assert job["status"] == "completed", job
    content = serving.content(job)
    assert len(read_video(content, "made", max_frames=100).frames) == num_frames
    assert read_metadata(content)["seed"] == 3


def test_connecting_keeps_both_videos_around_the_transition(serving: Serving) -> None:
    parts = [("input_reference", ("file", clip(colour))) for colour in (220, 20)]
    job = serving.video(parts, task="connect", prompt="one becomes the other", seed=1)
    frames = read_video(serving.content(job), "made", max_frames=100).frames.astype(int)
    assert abs(frames[:6, :, :, 0].mean() - 220) < 12
    assert abs(frames[-6:, :, :, 0].mean() - 20) < 12


def test_the_same_seed_gives_the_same_bytes_alone_in_a_batch_and_on_either_server(serving: Serving) -> None:
    alone = picture(serving, prompt="a blue square", seed=11)
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        crowd = [threads.submit(picture, serving, prompt=f"number {n}", seed=n) for n in range(12)]
        again = [threads.submit(picture, serving, prompt="a blue square", seed=11) for _ in range(12)]
        assert {each.result() for each in again} == {alone}
        assert len({each.result() for each in crowd}) == 12
    metrics = serving.http.get("/metrics").text
    batches = float(metrics.split('mora_batch_size_count{capability="text_to_image"} ')[1].split()[0])
    samples = float(metrics.split('mora_batch_size_sum{capability="text_to_image"} ')[1].split()[0])
    assert samples > batches, "some were made together"


def test_a_killed_server_is_replaced_and_no_request_is_lost_or_changed(serving: Serving) -> None:
    before = [picture(serving, prompt="a green ball", seed=seed, num_inference_steps=400) for seed in range(4)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        making = [
            threads.submit(picture, serving, prompt="a green ball", seed=seed, num_inference_steps=400)
            for seed in (0, 1, 2, 3)
        ]
        while not serving.http.get("/metrics").text.count("mora_requests_under_way 4"):
            assert not all(each.done() for each in making)
        serving.server_process("image.0").kill()
        assert [each.result() for each in making] == before
    serving.wait_ready()
    deadline = time.monotonic() + 60
    while not all(serving.http.get("/readyz").json()["servers"].values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert picture(serving, prompt="a green ball", seed=0, num_inference_steps=400) == before[0]
    (incident,) = read_status(serving.run).incidents
    assert incident.cause == "image.0 was killed by SIGKILL"


def test_progress_is_reported_by_step_and_a_deleted_video_frees_its_server(serving: Serving) -> None:
    steps = []
    with serving.http.stream(
        "POST", "/v1/images/generations", json={"prompt": "a cat", "num_inference_steps": 300, "stream": True}
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                steps.append(line.removeprefix("event: "))
    assert steps.count("image_generation.progress") >= 2
    assert steps[-1] == "image_generation.completed"
    edited = serving.http.post(
        "/v1/images/edits", data={"prompt": "a cat", "stream": "true"}, files={"image": PICTURE}
    ).text
    assert "event: image_edit.completed" in edited
    long = serving.http.post("/v1/videos", json={"prompt": "a cat", "num_inference_steps": 1000}).json()["id"]
    while serving.http.get(f"/v1/videos/{long}").json()["stage"] != "segment 1":
        time.sleep(0.02)
    assert serving.http.delete(f"/v1/videos/{long}").json()["deleted"]
    short = serving.video(task="text_to_video", prompt="a dog", seed=1)
    assert short["status"] == "completed"


def test_a_video_is_made_with_a_review_of_every_stage(serving: Serving) -> None:
    body = {"task": "text_to_video", "prompt": "a red circle", "seed": 3}
    made = serving.http.post("/v1/videos", json=body | {"review": True}).json()["id"]
    serving.decide(made, "prompt", "stop")  # and on another day
    assert serving.finished(made)["review"] == "stopped"
    assert serving.http.post(f"/v1/videos/{made}/review/resume").status_code == 200
    for stage, action in (("prompt", "accept"), ("image", "again"), ("image", "accept"), ("segment 1", "accept")):
        serving.decide(made, stage, action)
    job, plain = serving.finished(made), serving.video(**body)
    assert read_video(serving.content(job), "made", max_frames=100).frames.shape == (NUM_FRAMES, SIDE, SIDE, 3)
    assert serving.content(job) != serving.content(plain), "the picture was made again with another seed"


def test_every_example_of_every_task_makes_a_video(serving: Serving) -> None:
    listed = serving.http.get("/v1/tasks").json()
    assert [task["id"] for task in listed["data"]] == list(TASKS)
    assert listed["limits"]["max_prompt_length"] == 4000
    picture = listed["picture"]
    assert (picture["id"], picture["sizes"][0]) == ("picture", "32x32")
    assert all(
        serving.images(prompt=picture["examples"][0]["prompt"], size=size).is_success for size in picture["sizes"]
    )
    making = {}
    for task in listed["data"]:
        assert len(task["examples"]) == 2
        for example in task["examples"]:
            files = [("input_reference", ("file", serving.http.get(path).content)) for path in example["files"]]
            assert task["num_images"] + task["least_num_videos"] <= len(files)
            assert len(files) <= task["num_images"] + task["most_num_videos"]
            data = {"task": task["id"], "prompt": example["prompt"]}
            answer = serving.http.post("/v1/videos", data=data, files=files or None)
            assert answer.status_code == 200, answer.text
            making[answer.json()["id"]] = task["id"]
    for identifier, name in making.items():
        job = serving.finished(identifier)
        assert (job["status"], job["task"]) == ("completed", name), job


def gif_of_one_frame() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (32, 32)).save(sink, "GIF")
    return sink.getvalue()


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("images/generations", {"json": {"prompt": "  "}}, 400, "prompt: expected a text"),
        ("images/generations", {"json": {"prompt": "x" * 100_000}}, 400, "at most 4000 characters, got 100000"),
        ("images/generations", {"json": {"prompt": "a", "size": "63x32"}}, 400, "size: expected one of 32x32"),
        ("images/generations", {"json": {"prompt": "a", "model": "dall-e-9"}}, 404, "model: expected one of mora"),
        ("images/generations", {"json": {"prompt": "a", "n": 0}}, 400, "n: expected 1 to 10, got 0"),
        ("images/generations", {"json": {"prompt": "a", "seed": -1}}, 400, "seed: expected 0 to"),
        ("images/generations", {"json": {"prompt": "a", "sede": 1}}, 400, "did you mean `seed`"),
        ("images/generations", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "is not JSON"),
        ("images/generations", {"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "content-type"),
        ("images/edits", {"data": {"prompt": "a"}}, 400, "image: expected one picture"),
        ("images/edits", {"data": {"prompt": "a"}, "files": {"image": b"GIF89a no"}}, 400, "image: is a gif video"),
        ("images/edits", {"json": [1]}, 400, "body: expected a JSON object, got list"),
        ("videos", {"json": {"prompt": ""}}, 400, "prompt: expected a text"),
        ("videos", {"json": {"prompt": "x" * 100_000}}, 400, "at most 4000 characters, got 100000"),
        ("videos", {"json": {"prompt": "a", "size": "9999x9999"}}, 400, "size: expected one of 32x32"),
        ("videos", {"json": {"prompt": "a", "model": "sora-9"}}, 404, "model: expected one of mora"),
        ("videos", {"json": {"prompt": "a", "task": "dance"}}, 400, "task: expected one of text_to_video"),
        ("videos", {"content": b"x", "headers": {"content-type": "video/mp4"}}, 415, "content-type"),
        ("videos", {"json": {"prompt": "a", "num_frames": 0}}, 400, "num_frames: expected 2 to"),
        ("videos", {"json": {"prompt": "a", "num_frames": 10_000}}, 400, "num_frames: expected 2 to 480, got 10000"),
        ("videos", {"json": {"prompt": "a", "seconds": "900"}}, 400, "seconds: expected more than 0, at most 60"),
        ("videos", {"json": {"prompt": "a", "fps": 0}}, 400, "fps: expected 0.1 to 120, got 0"),
        ("videos", {"json": {"prompt": "a", "review": "maybe"}}, 400, "review: expected true or false, got maybe"),
        ("videos", {"json": {"prompt": "a", "task": "connect"}}, 400, "input_reference: connect needs 2"),
        ("videos/none/review", {"json": {"version": 1, "action": "accept"}}, 404, "video_id: no video `none`"),
        ("nothing", {"json": {}}, 404, "POST /v1/nothing: Not Found"),
        ("videos", {"json": {"prompt": "a", "input_reference": "/etc/passwd"}}, 400, "other URLs and paths are"),
        ("videos", {"json": {"prompt": "a", "input_reference": "http://x/a.mp4"}}, 400, "other URLs and paths"),
        ("videos", {"data": {"prompt": "a"}, "files": {"input_reference": clip(9)[:300]}}, 400, "has no video stream"),
        ("videos", {"data": {"prompt": "a"}, "files": {"input_reference": gif_of_one_frame()}}, 400, "2 frames"),
    ],
)
def test_bad_input_is_refused_by_field_and_limit(
    serving: Serving, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    answer = serving.http.post(f"/v1/{path}", **body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]
    assert serving.http.get("/healthz").status_code == 200


def test_an_invalid_query_is_refused_by_name(serving: Serving) -> None:
    for query, said in (("limit=many", "limit: Input should be a valid integer"), ("limit=0", "limit: expected 1 to")):
        answer = serving.http.get(f"/v1/videos?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith(said)


def test_an_upload_of_two_gigabytes_is_refused_before_it_is_read(serving: Serving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=30)
    connection.putrequest("POST", "/v1/images/edits")
    connection.putheader("content-type", "application/octet-stream")
    connection.putheader("content-length", str(2 << 30))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"body: expected at most 68157440 bytes, got 2147483648" in answer.read()
    connection.close()


def test_pages_of_other_sites_and_other_names_are_refused(serving: Serving) -> None:
    assert serving.http.get("/v1/models", headers={"host": "evil.example"}).status_code == 403
    assert serving.http.get("/v1/models", headers={"origin": "http://evil.example"}).status_code == 403


def test_two_hundred_clients_at_once_lose_and_repeat_no_request(serving: Serving) -> None:
    def one(seed: int) -> httpx.Response:
        with httpx.Client(base_url=serving.url, timeout=240, verify=False) as client:  # http alone: no certificates
            body = {"prompt": "a cat", "seed": seed, "num_inference_steps": 1}
            return client.post("/images/generations", json=body)

    with concurrent.futures.ThreadPoolExecutor(200) as threads:
        answers = list(threads.map(one, range(200)))
    assert [answer.status_code for answer in answers] == [200] * 200
    assert [answer.json()["data"][0]["seed"] for answer in answers] == list(range(200))
    deadline = time.monotonic() + 10  # a request is over a moment after its answer has left
    while "mora_requests_under_way 0" not in serving.http.get("/metrics").text:
        assert time.monotonic() < deadline
