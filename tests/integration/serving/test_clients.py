"""What clients of OpenAI's interface send, beyond the plain case: references, other names, other paths, odd uploads."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from mora_launch.decoding.video import read_video
from mora_launch.tasks.media import png, read_metadata

from tests.toy_agents.options import SIDE

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
        (
            {"file_id": "file-1"},
            "a data: URL, the id of a finished video or an object with `image_url` or `id` alone, got file_id",
        ),
        ({"image_url": data_url(PICTURE), "file_id": "x"}, "with `image_url` or `id` alone, got file_id, image_url"),
        ({"image_url": 1}, "with `image_url` or `id` alone, got image_url"),
        ({}, "with `image_url` or `id` alone, got an empty object"),
        ({"image_url": "https://example.org/a.png"}, "other URLs and paths are refused"),
        ([data_url(PICTURE)] * 2, "expected at most one picture, got more"),
        ([data_url(PICTURE)] * 3, "expected at most 2 references, got 3"),
        ([[data_url(PICTURE)]], "expected text, got list"),
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
        ("videos", "aspect_ratio", "aspect_ratio: unknown field; give size=WIDTHxHEIGHT"),
        ("videos", "flow_shift", "flow_shift: unknown field; the noise schedule is a part of the configuration"),
        ("videos", "duration", "duration: unknown field; give seconds"),
        ("videos/edits", "input_reference", "input_reference: unknown field"),
        ("images/generations", "true_cfg_scale", "true_cfg_scale: unknown field; these models have one guidance"),
    ],
)
def test_a_field_of_another_interface_is_refused_with_what_to_give_in_its_place(
    serving: Serving, path: str, field: str, words: str
) -> None:
    assert words in said(serving.http.post(f"/v1/{path}", json={"prompt": "a", field: "64"}), 400)
    assert words in said(serving.http.post(f"/v1/{path}", data={"prompt": "a", field: "64"}, files=NO_FILES), 400)


def test_the_fields_of_other_servers_make_the_video_that_they_ask_for(serving: Serving) -> None:
    form = {
        "prompt": "a red circle", "width": str(SIDE), "height": str(SIDE), "num_frames": "12", "fps": "6",
        "negative_prompt": "blue", "guidance_scale": "2", "extra_params": '{"seed": 7, "num_inference_steps": 2}',
    }  # fmt: skip
    sent = serving.http.post("/v1/videos/sync", data=form, files={"image_reference": (None, json.dumps(reference()))})
    assert sent.status_code == 200, sent.text
    video = read_video(sent.content, "made", max_frames=100)
    assert (video.frames.shape, round(video.fps)) == ((12, SIDE, SIDE, 3), 6)
    assert read_metadata(sent.content)["sampling"] == {
        "num_inference_steps": 2, "guidance_scale": 2.0, "negative_prompt": "blue"
    }  # fmt: skip
    body = {**form, "input_reference": reference(), "seconds": 2}
    del body["num_frames"], body["negative_prompt"], body["guidance_scale"]
    plain = serving.http.post("/v1/videos/sync", json=body)
    assert plain.status_code == 200, plain.text
    assert not np.array_equal(read_video(plain.content, "made", max_frames=100).frames, video.frames)


def reference() -> dict[str, str]:
    return {"image_url": data_url(PICTURE)}


def test_pictures_come_inside_the_answer_or_at_an_address(serving: Serving, api: openai.OpenAI) -> None:
    made = api.images.generate(prompt="a cat", n=2, size="auto", extra_body={"seed": 1}).data
    assert made is not None
    assert all(each.b64_json and each.url is None for each in made)
    stored = api.images.generate(prompt="a cat", response_format="url", extra_body={"seed": 1}).data
    assert stored is not None
    assert stored[0].url is not None
    assert serving.http.get(stored[0].url).content == base64.b64decode(made[0].b64_json or "")
    assert serving.http.get(stored[0].url, headers={"host": "evil.example"}).status_code == 403
    shared = httpx.get(stored[0].url.replace(".png", ".webp"))
    assert shared.status_code == 404


def test_every_model_of_the_list_makes_what_it_can(serving: Serving, api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == ["mora", "image", "video", "source", "last"]
    for name in ("mora", "image", "source"):
        assert api.images.generate(prompt="a cat", model=name).data
    for name in ("mora", "video", "last"):
        job = serving.http.post("/v1/videos", json={"prompt": "a cat", "model": name}).json()
        assert serving.finished(job["id"])["model"] == name
    words = said(serving.http.post("/v1/videos", json={"prompt": "a", "model": "source"}), 404)
    assert words == "model: expected one of mora, video, last, got source"


def test_pages_of_the_list_have_each_video_once_and_end(serving: Serving, api: openai.OpenAI) -> None:
    made = [serving.video(prompt="a cat", seed=number)["id"] for number in range(3)]
    for order in ("desc", "asc"):
        listed = [each.id for each in api.videos.list(limit=1, order=order)]  # type: ignore[arg-type]
        assert len(listed) == len(set(listed))
        assert [each for each in listed if each in made] == (made if order == "asc" else made[::-1])
    assert "limit: expected 1 to 100, got 0" in said(serving.http.get("/v1/videos?limit=0"), 400)


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
