"""What clients of OpenAI's interface send, beyond the plain case: references, other names, other paths, odd uploads."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import openai
import pytest
from mora_launch.tasks.media import png

from .conftest import Serving

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
PICTURE = png(np.full((80, 120, 3), 90, dtype=np.uint8))
LARGE = png(np.random.default_rng(0).integers(0, 256, (800, 900, 3), dtype=np.uint8))  # its pixels do not compress


def data_url(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


@pytest.fixture
def api(serving: Serving) -> openai.OpenAI:
    return openai.OpenAI(base_url=serving.url, api_key="none", max_retries=0)


def made_from(serving: Serving, api: openai.OpenAI, **given: Any) -> bytes:
    job = api.videos.create(prompt="a red circle", **given)
    done = serving.finished(job.id)
    assert done["status"] == "completed", done
    return serving.content(done)


def said(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


@pytest.mark.parametrize("picture", [PICTURE, LARGE], ids=["small", "over the limit of a form's field"])
def test_a_picture_gives_the_same_video_as_a_file_and_as_a_reference(
    serving: Serving, api: openai.OpenAI, picture: bytes
) -> None:
    file = ("picture.png", picture, "image/png")
    as_file = made_from(serving, api, input_reference=file, extra_body={"seed": 1})
    # the client itself refuses an object as its argument `input_reference`
    body = {"seed": 1, "input_reference": {"image_url": data_url(picture)}}
    assert made_from(serving, api, extra_body=body) == as_file
    answer = serving.http.post("/v1/videos", json={"prompt": "a red circle", **body})
    assert answer.status_code == 200, answer.text
    assert serving.content(serving.finished(answer.json()["id"])) == as_file


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"file_id": "file-1"}, "expected a file, a data: URL or an object with `image_url` alone, got file_id"),
        ({"image_url": data_url(PICTURE), "file_id": "x"}, "with `image_url` alone, got file_id, image_url"),
        ({"image_url": 1}, "with `image_url` alone, got image_url"),
        ({}, "with `image_url` alone, got an empty object"),
        ({"image_url": "https://example.org/a.png"}, "other URLs and paths are refused"),
        ([data_url(PICTURE)], "expected text, got list"),
    ],
)
def test_another_reference_is_refused_by_name(serving: Serving, reference: Any, words: str) -> None:
    answer = serving.http.post("/v1/videos", json={"prompt": "a", "input_reference": reference})
    assert words in said(answer, 400)


def test_a_reference_in_a_form_is_read_once_and_other_fields_stay_short(serving: Serving) -> None:
    twice = {"prompt": "a", "input_reference": data_url(PICTURE), "input_reference[image_url]": data_url(PICTURE)}
    assert "input_reference: is given twice" in said(serving.http.post("/v1/videos", data=twice, files=NO_FILES), 400)
    long = {"prompt": "a" * (2 << 20)}
    assert "prompt: expected at most" in said(serving.http.post("/v1/videos", data=long, files=NO_FILES), 400)


NO_FILES = {"seed": (None, "1")}  # makes httpx send a multipart form


@pytest.mark.parametrize(
    ("path", "field", "words"),
    [
        ("videos", "width", "width: unknown field; give size=WIDTHxHEIGHT"),
        ("videos", "height", "height: unknown field; give size=WIDTHxHEIGHT"),
        ("videos", "negative_prompt", "negative_prompt: unknown field; say in the prompt what the video shows"),
        ("videos", "extra_params", "extra_params: unknown field; give each of its fields by itself"),
        ("videos", "duration", "duration: unknown field; give seconds"),
        ("images/generations", "width", "width: unknown field; give size=WIDTHxHEIGHT"),
        ("images/generations", "negative_prompt", "negative_prompt: unknown field; say in the prompt"),
    ],
)
def test_a_field_of_another_interface_is_refused_with_what_to_give_in_its_place(
    serving: Serving, path: str, field: str, words: str
) -> None:
    assert words in said(serving.http.post(f"/v1/{path}", json={"prompt": "a", field: "64"}), 400)
    assert words in said(serving.http.post(f"/v1/{path}", data={"prompt": "a", field: "64"}, files=NO_FILES), 400)


def test_pictures_are_sent_inside_the_answer_and_an_address_is_refused_by_name(
    serving: Serving, api: openai.OpenAI
) -> None:
    made = api.images.generate(prompt="a cat", n=2, size="auto").data
    assert made is not None
    assert all(each.b64_json and each.url is None for each in made)
    with pytest.raises(openai.BadRequestError, match="response_format: expected b64_json"):
        api.images.generate(prompt="a cat", response_format="url")


def test_pages_of_the_list_have_each_video_once_and_end(serving: Serving, api: openai.OpenAI) -> None:
    made = [serving.video(prompt="a cat", seed=number)["id"] for number in range(3)]
    for order in ("desc", "asc"):
        listed = [each.id for each in api.videos.list(limit=1, order=order)]  # type: ignore[arg-type]
        assert len(listed) == len(set(listed))
        assert [each for each in listed if each in made] == (made if order == "asc" else made[::-1])
    assert "limit: expected 1 to 100, got 0" in said(serving.http.get("/v1/videos?limit=0"), 400)


@pytest.mark.parametrize(
    ("path", "task"), [("edits", "edit"), ("extensions", "extend"), ("video_0/remix", "edit")], ids=str
)
def test_a_path_with_another_place_here_is_answered_with_that_place(serving: Serving, path: str, task: str) -> None:
    answer = serving.http.post(f"/v1/videos/{path}", json={"prompt": "a", "video": {"id": "video_0"}})
    assert f"use POST /v1/videos with task={task} and" in said(answer, 404)


def test_harmless_fields_are_ignored(serving: Serving, api: openai.OpenAI) -> None:
    extra = {"quality": "hd", "user": "u", "metadata": {"a": "b"}}
    job = api.videos.create(prompt="a cat", extra_body=extra)  # type: ignore[call-overload]
    assert serving.finished(job.id)["status"] == "completed"
    assert api.images.generate(prompt="a cat", quality="hd", user="u").data


def test_a_file_with_an_odd_name_and_a_body_in_chunks_are_read(serving: Serving) -> None:
    part = [("input_reference", ("ein schönes Bild.png", PICTURE, "image/png"))]
    assert serving.video(part, prompt="a cat", seed=1)["status"] == "completed"
    body = json.dumps({"prompt": "a cat", "seed": 1}).encode()
    sent = serving.http.post(
        "/v1/videos", content=iter([body[:9], body[9:]]), headers={"content-type": "application/json"}
    )
    assert sent.status_code == 200, sent.text
