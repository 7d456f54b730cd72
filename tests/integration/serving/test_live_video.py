"""The frames of a running job can be watched: `/content` streams them as they are made."""

from __future__ import annotations

import io
import time

import av
import httpx
import pytest

from .conftest import Serving

pytestmark = pytest.mark.timeout(300)
SLOW = {"prompt": "a red circle", "seconds": 2, "num_inference_steps": 300, "seed": 3}
NUM_FRAMES = 16
DEADLINE_S = 120.0


def num_frames(content: bytes) -> int:
    with av.open(io.BytesIO(content)) as container:
        return sum(1 for _ in container.decode(video=0))


def created(serving: Serving) -> str:
    answer = serving.http.post("/v1/videos", json=SLOW)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def wait_for_frames(serving: Serving, identifier: str) -> None:
    """Wait until there is something to watch; before, the answer says that it is too early."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with serving.http.stream("GET", f"/v1/videos/{identifier}/content") as answer:
            if answer.status_code == 200:
                return
            assert answer.status_code == 409, answer.status_code
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_first_frames_are_seen_before_the_last_are_made_and_the_stream_ends_with_the_video(
    serving: Serving,
) -> None:
    identifier = created(serving)
    wait_for_frames(serving, identifier)
    content, status_at_first = b"", ""
    with serving.http.stream("GET", f"/v1/videos/{identifier}/content", timeout=DEADLINE_S) as answer:
        assert answer.headers["content-type"] == "video/mp4"
        assert "content-length" not in answer.headers
        for chunk in answer.iter_bytes():
            content += chunk
            if not status_at_first and num_frames(content) > 0:
                status_at_first = serving.http.get(f"/v1/videos/{identifier}").json()["status"]
    assert status_at_first == "in_progress"
    assert num_frames(content) == NUM_FRAMES
    assert num_frames(serving.content(serving.finished(identifier))) == NUM_FRAMES
    assert [path.suffix for path in (serving.run / "videos").glob(f"{identifier}.live*")] == []


def delete_after_the_first_chunk(serving: Serving, identifier: str, answer: httpx.Response) -> None:
    """Delete the video that is being watched, and watch on."""
    for number, _ in enumerate(answer.iter_bytes()):
        if number == 0:
            assert serving.http.delete(f"/v1/videos/{identifier}").status_code == 200


def test_the_stream_of_a_video_that_is_deleted_breaks_off_instead_of_looking_whole(serving: Serving) -> None:
    identifier = created(serving)
    wait_for_frames(serving, identifier)
    with (
        pytest.raises(httpx.RemoteProtocolError),
        serving.http.stream("GET", f"/v1/videos/{identifier}/content", timeout=DEADLINE_S) as answer,
    ):
        delete_after_the_first_chunk(serving, identifier, answer)
