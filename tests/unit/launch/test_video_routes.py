"""The endpoints for videos: each makes what it says, and the results are found, in part and to the end of the list."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from mora_data.reading.timeline import Video
from mora_launch.decoding.video import read_video
from mora_launch.limits import MAX_JSON_NBYTES
from mora_launch.serving.http.jobs.growing_file import GrowingFile
from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.serving.http.results.frame_sheet import frame_sheet
from mora_launch.tasks.media import encode, png
from mora_launch.tasks.request import TaskRequest
from mora_runtime.errors import Cancelled
from PIL import Image

from tests.unit.launch.instant_server import NUM_FRAMES, SIDE, InstantServer, instant_server, said

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CLIP = encode(np.full((6, 48, 48, 3), 90, np.uint8), 8.0, "mp4", {})


@pytest.fixture
def served(tmp_path: Path) -> Iterator[InstantServer]:
    with instant_server(tmp_path, "serving.max_waiting=300") as server:
        yield server


def frames(content: bytes) -> Video:
    return read_video(content, "made", max_frames=1000)


def test_a_video_is_answered_at_once_and_is_the_same_as_one_that_is_polled(served: InstantServer) -> None:
    body = {"prompt": "a red circle", "seed": 3, "num_frames": 9}
    now = served.http.post("/v1/videos/sync", json=body)
    assert now.status_code == 200, now.text
    assert now.headers["content-type"] == "video/mp4"
    later = served.video(**body)
    assert now.content == served.http.get(f"/v1/videos/{later['id']}/content").content
    assert served.http.get(f"/v1/videos/{now.headers['x-video-id']}").json()["status"] == "completed"
    assert "review: unknown field" in said(served.http.post("/v1/videos/sync", json=body | {"review": True}), 400)


def test_a_client_that_hangs_up_cancels_its_job(served: InstantServer) -> None:
    served.pool.waits = True
    messages = [{"type": "http.request", "body": json.dumps({"prompt": "a"}).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        while not served.pool.works:  # the job has begun
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def first_the_body() -> dict[str, Any]:
        return messages.pop() if messages else await receive()

    async def send(message: Any) -> None:
        """Discard the message."""

    scope = {
        "type": "http", "method": "POST", "path": "/v1/videos/sync", "query_string": b"", "asgi": {},
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(served.app(scope, first_the_body, send), 60))
    assert isinstance(served.pool.works[0].future.exception(60), Cancelled)
    assert served.http.get("/v1/videos").json()["data"] == []


def test_a_picture_of_megabytes_is_taken_in_every_form(served: InstantServer) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (800, 900, 3), dtype=np.uint8)
    picture = png(noise)
    assert len(picture) > MAX_JSON_NBYTES
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    form = {"prompt": "a red circle", "seed": "3"}
    made = []
    for name in ("input_reference", "image_reference"):
        made.append(served.http.post("/v1/videos/sync", data=form, files={name: ("a.png", picture)}))
        made.append(served.http.post("/v1/videos/sync", json={**form, name: {"image_url": url}}))
        for value in (url, json.dumps({"image_url": url})):
            made.append(served.http.post("/v1/videos/sync", data=form, files={name: (None, value)}))
    assert [answer.status_code for answer in made] == [200] * 8, [answer.text[:200] for answer in made]
    assert len({answer.content for answer in made}) == 1
    twice = {**form, "input_reference": url, "image_reference": url}
    words = said(served.http.post("/v1/videos/sync", json=twice), 400)
    assert words == "input_reference: is given twice, as input_reference and image_reference; give it once"


def test_finished_videos_are_edited_extended_and_remixed(served: InstantServer) -> None:
    source = served.video(fps=4, format="webm", num_frames=9)
    api = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none", max_retries=0, http_client=served.http)
    video = {"id": source["id"]}  # the client itself refuses an object as its argument `video`
    edited = api.post("/videos/edits", body={"prompt": "in green", "video": video}, cast_to=openai.types.Video)
    body = {"prompt": "it moves on", "video": video["id"], "seconds": "2"}
    extended = api.post("/videos/extensions", body=body, cast_to=openai.types.Video)
    remixed = api.videos.remix(source["id"], prompt="in blue")
    for job, task, num_frames in ((edited, "edit", 9), (extended, "extend", 17), (remixed, "edit", 9)):
        done = served.finished(job.id)
        assert (done["status"], done["task"]) == ("completed", task), done
        assert done["remixed_from_video_id"] == source["id"]
        made = frames(served.http.get(f"/v1/videos/{job.id}/content").content)
        assert (len(made.frames), round(made.fps)) == (num_frames, 4), "the rate is that of the source"
    assert served.finished(remixed.id)["seed"] != source["seed"]
    given = served.http.post(f"/v1/videos/{source['id']}/remix", json={"prompt": "in blue", "seed": 11}).json()
    assert served.finished(given["id"])["seed"] == 11


@pytest.mark.parametrize(("path", "num_frames"), [("edits", 6), ("extensions", 6 + NUM_FRAMES - 1)])
def test_a_file_is_edited_and_extended(served: InstantServer, path: str, num_frames: int) -> None:
    api = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none", max_retries=0, http_client=served.http)
    if path == "edits":
        sent = api.videos.edit(prompt="in green", video=("a.mp4", CLIP))
    else:
        sent = api.videos.extend(prompt="on", video=("a.mp4", CLIP), seconds=openai.omit)  # type: ignore[arg-type]
    done = served.finished(sent.id)
    assert done["remixed_from_video_id"] is None
    assert len(frames(served.http.get(f"/v1/videos/{done['id']}/content").content).frames) == num_frames


def data_url(content: bytes, media_type: str = "video/mp4") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def test_finished_videos_are_connected_in_json(served: InstantServer) -> None:
    first, second = (served.video(num_frames=9, fps=4, seed=seed, format="webm")["id"] for seed in (3, 4))
    clip = data_url(CLIP)
    ends = (
        [first, second], [{"id": first}, {"id": second}], [{"id": first}, second], [first, clip],
        [{"image_url": clip}, {"id": first}],
    )  # fmt: skip
    for references in ends:
        body = {"prompt": "one becomes the other", "task": "connect", "input_reference": references}
        done = served.finished(served.http.post("/v1/videos", json=body).json()["id"])
        assert (done["status"], done["remixed_from_video_id"]) == ("completed", first), done
        num_given = 18 if clip not in references and {"image_url": clip} not in references else 9 + 3
        made = frames(served.http.get(f"/v1/videos/{done['id']}/content").content)
        assert (len(made.frames), round(made.fps)) == (num_given + NUM_FRAMES - 2, 4)
        assert float(done["seconds"]) == len(made.frames) / 4


def test_a_list_of_large_data_urls_is_taken_apart(served: InstantServer) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 1000, 3), dtype=np.uint8)
    picture = png(noise)
    assert len(picture) > MAX_JSON_NBYTES
    body = {"prompt": "a red circle", "seed": 3}
    url = data_url(picture, "image/png")
    single, *lists = (
        served.http.post("/v1/videos/sync", json={**body, name: value})
        for name, value in (
            ("input_reference", url), ("input_reference", [url]), ("image_reference", [{"image_url": url}]),
        )
    )  # fmt: skip
    for answer in lists:
        assert answer.status_code == 200, answer.text[:200]
        assert answer.content == single.content


def test_a_form_names_finished_videos_too(served: InstantServer) -> None:
    first, second = (served.video(seed=seed)["id"] for seed in (3, 4))
    for field in ("input_reference", "input_reference[]"):
        form = {"prompt": "one becomes the other", "task": "connect", field: [first, second]}
        answer = served.http.post("/v1/videos", data=form, files={"seed": (None, "5")})
        assert answer.status_code == 200, answer.text
        done = served.finished(answer.json()["id"])
        assert (done["status"], done["task"]) == ("completed", "connect")


@pytest.mark.parametrize(
    ("references", "words", "status"),
    [
        (["video_0"], "no video `video_0`; it is unknown or deleted", 404),
        ([{"id": "../x"}], "no video `../x`; it is unknown or deleted", 404),
        (["/etc/passwd"], "expected a file, a data: URL in base64 or the id of a finished video; other URLs", 400),
        ([{"image_url": "http://x/a.png"}], "other URLs and paths are refused", 400),
        ([{"file_id": "f"}], "object with `image_url` or `id` alone, got file_id", 400),
        ([{"id": "a", "image_url": "b"}], "object with `image_url` or `id` alone, got id, image_url", 400),
        ([{}], "object with `image_url` or `id` alone, got an empty object", 400),
        ([1], "expected text, got int", 400),
        ([["a"]], "expected text, got list", 400),
        (["a", "b", "c"], "expected at most 2 references, got 3", 400),
        ([data_url(CLIP)], "connect needs 2 video(s), got 1", 400),
        ([], "connect needs 2 video(s), got 0", 400),
    ],
)
def test_a_wrong_reference_is_refused_under_the_name_of_its_field(
    served: InstantServer, references: list[Any], words: str, status: int
) -> None:
    body = {"prompt": "a", "task": "connect", "input_reference": references}
    answer = served.http.post("/v1/videos", json=body)
    told = said(answer, status)
    assert told.startswith("input_reference: ")
    assert words in told
    assert answer.json()["error"]["param"] == "input_reference"


@pytest.mark.parametrize(
    ("path", "body", "num_frames"),
    [
        ("", {}, NUM_FRAMES),
        ("", {"seconds": 2}, 16),
        ("/ID/remix", {}, 9),
        ("/edits", {"video": "ID"}, 9),
        ("/edits", {"video": "ID", "num_frames": 4}, 4),
        ("/extensions", {"video": "ID"}, 9 + NUM_FRAMES - 1),
        ("/extensions", {"video": "ID", "seconds": 1}, 9 + 8),
    ],
)
def test_the_length_of_a_video_is_known_before_it_is_made(
    served: InstantServer, path: str, body: dict[str, Any], num_frames: int
) -> None:
    source = served.video(num_frames=9)["id"]
    own = {name: source if value == "ID" else value for name, value in body.items()}
    address, request = f"/v1/videos{path.replace('ID', source)}", {"prompt": "it moves on", **own}
    served.pool.waits = True
    planned = served.http.post(address, json=request).json()
    served.pool.waits = False
    made = served.finished(served.http.post(address, json=request).json()["id"])
    assert planned["status"] != "completed"
    assert float(planned["seconds"]) == float(made["seconds"]) == num_frames / 8


def test_a_source_that_is_no_finished_video_is_refused_by_name(served: InstantServer) -> None:
    unfinished = VideoJob(TaskRequest("text_to_video", "a cat", 7, 8.0), "mora", (SIDE, SIDE), "mp4", None)
    served.jobs._jobs[unfinished.id] = unfinished
    path = "/v1/videos/edits"
    for video, words, status in (
        ("/etc/passwd", "video: no video `/etc/passwd`; it is unknown or deleted", 404),
        ({"id": "video_0"}, "video: no video `video_0`", 404),
        ({"id": unfinished.id}, "video: the video is queued, not completed; poll it until it is", 409),
        ({"url": "http://x/a.mp4"}, "expected a file, the id of a finished video or an object with `id` alone", 400),
        ([1], "video: expected text, got list", 400),
        ("data:video/mp4;base64,!", "video: is not valid base64", 400),
        (None, "video: edit needs 1 video(s), got 0", 400),
    ):
        assert words in said(served.http.post(path, json={"prompt": "a", "video": video}), status)
    remixed = served.http.post(f"/v1/videos/{unfinished.id}/remix", json={"prompt": "a"})
    assert said(remixed, 409).startswith("video_id: the video is queued")
    assert "no frame is finished yet" in said(served.http.get(f"/v1/videos/{unfinished.id}/content"), 409)


def test_a_part_of_a_file_and_its_headers_alone_are_sent(served: InstantServer) -> None:
    address = f"/v1/videos/{served.video()['id']}/content"
    whole = served.http.get(address)
    part = served.http.get(address, headers={"range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, whole.content[5:10])
    head = served.http.head(address)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(whole.content)))
    wrong = served.http.get(address, headers={"range": f"bytes={len(whole.content)}-"})
    assert "range: expected bytes=FIRST-LAST within" in said(wrong, 416)
    assert wrong.headers["content-range"] == f"bytes */{len(whole.content)}"
    assert "range: expected" in said(served.http.get(address, headers={"range": "lines=1"}), 400)
    for path in ("/v1/videos", address.removesuffix("/content"), "/v1/tasks"):
        assert served.http.head(path).status_code == 200, path


def test_a_running_video_is_a_stream_without_length_and_parts(served: InstantServer) -> None:
    served.pool.waits = True
    identifier = served.http.post("/v1/videos", json={"prompt": "a red circle", "enhance": False}).json()["id"]
    address = f"/v1/videos/{identifier}/content"
    early = served.http.get(address)
    assert "no frame is finished yet" in said(early, 409)
    assert early.headers["retry-after"] == "2"
    sheet = served.http.get(address, params={"variant": "spritesheet"})
    assert "not completed; poll it until it is" in said(sheet, 409)
    assert "retry-after" not in sheet.headers
    job = served.jobs.get(identifier)
    job.live = GrowingFile(served.jobs._folder.live(job))
    job.live.path.write_bytes(b"some frames")
    job.live.grown()
    job.live.end(is_whole=True)
    job.status = "in_progress"
    head = served.http.head(address)
    whole = served.http.get(address, headers={"range": "bytes=5-9"})
    assert (head.status_code, head.content) == (200, b"")
    assert (whole.status_code, whole.content) == (200, b"some frames")
    for answer in (head, whole):
        assert "content-length" not in answer.headers
        assert (answer.headers["accept-ranges"], answer.headers["content-type"]) == ("none", "video/mp4")


def test_a_reviewed_video_that_runs_cannot_be_watched(served: InstantServer) -> None:
    served.pool.waits = True
    body = {"prompt": "a red circle", "enhance": False, "review": True}
    identifier = served.http.post("/v1/videos", json=body).json()["id"]
    early = served.http.get(f"/v1/videos/{identifier}/content")
    assert "not completed; poll it until it is" in said(early, 409)
    assert "retry-after" not in early.headers


def test_a_file_is_never_newer_than_the_answer(served: InstantServer) -> None:
    identifier = served.video()["id"]
    path = served.jobs.file(served.jobs.get(identifier))
    for age_s, told_s in ((-100.0, 2.0), (0.0, 2.0), (100.0, 100.0)):
        now_s = time.time()
        os.utime(path, (now_s - age_s, now_s - age_s))
        answer = served.http.head(f"/v1/videos/{identifier}/content")
        last_s = parsedate_to_datetime(answer.headers["last-modified"]).timestamp()
        assert last_s <= time.time() - told_s
        assert last_s >= now_s - told_s - 1


def test_a_video_is_shown_as_its_first_frame_and_as_a_sheet(served: InstantServer) -> None:
    address = f"/v1/videos/{served.video(num_frames=9)['id']}/content"
    thumbnail = served.http.get(address, params={"variant": "thumbnail"})
    assert (thumbnail.headers["content-type"], thumbnail.content[:4]) == ("image/png", b"\x89PNG")
    sheet = served.http.get(address, params={"variant": "spritesheet"})
    assert sheet.headers["content-type"] == "image/jpeg", sheet.text
    with Image.open(io.BytesIO(sheet.content)) as picture:
        assert picture.size == (4 * SIDE, 3 * SIDE)
    answer = served.http.get(address, params={"variant": "film"})
    assert "variant: expected one of video, thumbnail, spritesheet, got film" in said(answer, 400)


def test_a_sheet_has_evenly_spaced_frames_from_the_first_to_the_last() -> None:
    clip = np.arange(31, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(3, 2).repeat(3, 3)
    sheet = frame_sheet(clip)
    assert sheet.shape == (4 * 2, 4 * 3, 3)
    assert sheet[::2, ::3, 0].ravel().tolist() == list(range(0, 31, 2))
    few = frame_sheet(clip[:5])
    assert few[::2, ::3, 0].ravel().tolist() == [0, 1, 2, 3, 4, 0, 0, 0]


def listed(served: InstantServer, number: int) -> list[str]:
    """Ids of so many jobs, the oldest first."""
    for _ in range(number):
        job = VideoJob(TaskRequest("text_to_video", "a cat", 7, 8.0), "mora", (SIDE, SIDE), "mp4", None)
        job.status = "completed"
        served.jobs._jobs[job.id] = job
    return list(served.jobs._jobs)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [7, 100])
def test_the_list_is_walked_to_its_end(served: InstantServer, order: Any, limit: int) -> None:
    made = listed(served, 250)
    api = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none", max_retries=0, http_client=served.http)
    walked = [each.id for each in api.videos.list(limit=limit, order=order)]
    assert walked == (made if order == "asc" else made[::-1])


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_list_goes_on_after_jobs_that_were_deleted_meanwhile(served: InstantServer, order: Any) -> None:
    made = listed(served, 250)
    api = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none", max_retries=0, http_client=served.http)
    walked = []
    for number, each in enumerate(api.videos.list(limit=10, order=order)):
        walked.append(each.id)
        if number % 10 == 9:
            api.videos.delete(each.id)  # the last one of a page, after which the next page begins
    assert walked == (made if order == "asc" else made[::-1])
    assert len(served.jobs.all()) == 225


def test_an_unknown_field_of_a_query_is_refused_by_name(served: InstantServer) -> None:
    listing = said(served.http.get("/v1/videos?limits=5"), 400)
    assert listing.startswith("limits: unknown field of the query; the endpoint takes after, limit, order in its query")
    assert listing.endswith("did you mean `limit`?")
    content = said(served.http.get("/v1/videos/video_0/content?variants=thumbnail"), 400)
    assert content.endswith("takes variant in its query; did you mean `variant`?")
    assert said(served.http.get("/v1/tasks?x=1"), 400) == "x: unknown field of the query; the endpoint takes no query"
    created = served.http.post("/v1/videos?seed=3", json={"prompt": "a red circle"})
    assert "seed: unknown field of the query; the endpoint takes no query; give fields in the body" in said(
        created, 400
    )
    assert served.http.get("/v1/videos").json()["data"] == []
    assert served.http.head("/v1/tasks?limit=1").status_code == 400


def test_a_cursor_that_is_no_id_is_refused(served: InstantServer) -> None:
    assert "after: no video `x`" in said(served.http.get("/v1/videos?after=x"), 404)
    page = served.http.get("/v1/videos?limit=5").json()
    assert (page["data"], page["has_more"], page["first_id"], page["last_id"]) == ([], False, None, None)
