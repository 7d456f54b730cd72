"""Every field that `/openapi.json` describes is accepted by its endpoint, and every other one is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_launch.serving.http.requests.bodies import (
    ImageEdit,
    ImageGeneration,
    RequestBody,
    VideoCreation,
    VideoEdit,
    VideoExtension,
    VideoNow,
    VideoRemix,
)
from mora_launch.tasks.media import encode, png

from tests.unit.launch import instant_server as instant_server_module
from tests.unit.launch.instant_server import SIDE, InstantServer, instant_server, said

PICTURE = png(np.full((32, 48, 3), 90, np.uint8))
CLIP = encode(np.full((6, 32, 32, 3), 90, np.uint8), 8.0, "mp4", {})
BODIES: dict[str, type[RequestBody]] = {
    "/v1/images/generations": ImageGeneration, "/v1/images/edits": ImageEdit, "/v1/videos": VideoCreation,
    "/v1/videos/sync": VideoNow, "/v1/videos/edits": VideoEdit, "/v1/videos/extensions": VideoExtension,
    "/v1/videos/{video_id}/remix": VideoRemix,
}  # fmt: skip
# What goes with a field: those without which it has no meaning, and a value where the described one does not say it.
WITH: dict[str, dict[str, Any]] = {
    "width": {"width": SIDE, "height": SIDE}, "height": {"width": SIDE, "height": SIDE},
    "output_compression": {"output_format": "webp", "output_compression": 80}, "stream": {"stream": True},
    "enhance": {"enhance": True}, "review": {"review": False}, "codec": {"format": "mp4"},
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstantServer]:
    with instant_server(tmp_path_factory.mktemp("bodies"), "serving.max_waiting=300") as server:
        server.name_adapters({"ink": ("image", "video")})
        yield server


def described(served: InstantServer) -> dict[str, Any]:
    """Schema of the JSON body of each path that takes one."""
    found = {}
    for path, methods in served.http.get("/openapi.json").json()["paths"].items():
        if "requestBody" in methods.get("post", {}):
            found[path] = methods["post"]["requestBody"]["content"]["application/json"]["schema"]
    return found


def sent(served: InstantServer, path: str, body: dict[str, Any]) -> Any:
    """The answer to a body, sent as a form where the endpoint needs a file that the body does not name."""
    if "{video_id}" in path:
        path = path.replace("{video_id}", served.video()["id"])
    field, content = {"/v1/images/edits": ("image", PICTURE)}.get(path, ("video", CLIP))
    needs_file = path.endswith(("edits", "extensions")) and field not in body
    if not needs_file:
        return served.http.post(path, json=body)
    data = {name: json.dumps(value) if isinstance(value, dict | bool) else str(value) for name, value in body.items()}
    return served.http.post(path, data=data, files={field: ("file", content)})


def test_every_endpoint_with_a_body_describes_it_with_types_limits_and_examples(served: InstantServer) -> None:
    schemas = described(served)
    assert set(schemas) == {*BODIES, "/v1/videos/{video_id}/review"}
    for path, schema in schemas.items():
        for name, field in schema["properties"].items():
            assert {"type", "anyOf", "enum", "$ref"} & set(field), (path, name)
    made = schemas["/v1/videos"]["properties"]
    assert made["seed"]["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
    assert made["prompt"] == {
        "examples": ["a red circle moves left"], "maxLength": 4000, "minLength": 1, "title": "Prompt", "type": "string"
    }  # fmt: skip
    group = made["extra_params"]["anyOf"][0]
    assert {"seed", "strength", "negative_prompt", "fps"} <= set(group["properties"])
    assert group["additionalProperties"] is False


def cases() -> Iterator[Any]:
    for path, body in BODIES.items():
        for name, field in body.model_fields.items():
            if name in ("image", "video", "input_reference", "image_reference"):
                continue  # files, which the tests of clients send in every form
            for example in field.examples or [None]:
                yield pytest.param(path, name, example, id=f"{path.removeprefix('/v1/')}-{name}-{example}")


@pytest.mark.parametrize(("path", "name", "example"), list(cases()))
def test_every_described_field_is_accepted(served: InstantServer, path: str, name: str, example: Any) -> None:
    assert name in described(served)[path]["properties"]
    body = {"prompt": "a red circle", **({} if example is None else {name: example}), **WITH.get(name, {})}
    assert name in body, f"{name} needs an example"
    answer = sent(served, path, body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", BODIES)
def test_every_other_field_is_refused_by_name(served: InstantServer, path: str) -> None:
    others = {name for body in BODIES.values() for name in body.names()} - BODIES[path].names()
    for name in ("unheard_of", *BODIES[path].instead, *sorted(others)):
        words = said(sent(served, path, {"prompt": "a", name: "1"}), 400)
        assert words.startswith(f"{name}: unknown field"), words
        assert BODIES[path].instead.get(name, "") in words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"extra_params": {"sead": 1}},
            "extra_params: unknown field `sead`; expected some of seed, num_inference_steps",
        ),
        ({"extra_params": {"seed": 1}, "seed": 2}, "seed: is given twice, by itself and in extra_params"),
        ({"extra_params": [1]}, "extra_params: expected a JSON object, got list"),
        ({"extra_params": "{1}"}, "extra_params: is not JSON"),
        ({"extra_params": {"seed": -1}}, "seed: expected 0 to 2147483647, got -1"),
        ({"video_params": {"seed": 1}}, "video_params: unknown field `seed`; expected some of width, height"),
        ({"seconds": 1, "num_frames": 8}, "num_frames: is given together with seconds; give one of them"),
        ({"seconds": "1.3"}, "seconds: expected whole frames at 8 a second; the nearest lengths are 1.25 and 1.375"),
        ({"seconds": 0.1}, "seconds: expected at least two frames, 0.25 at 8 a second, got 0.1"),
        ({"width": 32}, "height: is missing; give it together with width"),
        ({"height": 32}, "width: is missing; give it together with height"),
        ({"width": 32, "height": 32, "size": "32x32"}, "size: is given together with width and height"),
        ({"width": 33, "height": 32}, "size: expected one of 32x32, got 33x32; the nearest is 32x32"),
        ({"n": 2}, "n: expected 1; one request makes one video"),
        ({"negative_prompt": "x" * 5000}, "negative_prompt: expected at most 4000 characters, got 5000"),
        ({"negative_prompt": "a", "guidance_scale": 1}, "negative_prompt: has no effect at guidance_scale 1 of the"),
        ({"task": "connect", "seconds": 1}, "seconds: connect takes none"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_can(served: InstantServer, body: dict[str, Any], words: str) -> None:
    if body.get("task") == "connect":
        files = [("input_reference", ("a.mp4", CLIP))] * 2
        answer = served.http.post("/v1/videos", data={"prompt": "a", **body}, files=files)
    else:
        answer = served.http.post("/v1/videos", json={"prompt": "a", "fps": 8, **body})
    assert words in said(answer, 400)


def test_sampling_fields_mean_the_same_alone_in_an_object_and_in_a_form(served: InstantServer) -> None:
    fields = {"seed": 7, "num_inference_steps": 3, "negative_prompt": "blue", "guidance_scale": 2.0}
    for body in (fields, {"extra_params": fields}):
        served.pool.submitted.clear()
        answer = served.http.post("/v1/videos", json={"prompt": "a", "num_frames": 9, **body})
        assert served.finished(answer.json()["id"])["seed"] == 7
        assert [name for name, _ in served.pool.submitted] == ["text_to_image", "image_to_video", "extend_video"]
        for _, shared in served.pool.submitted:
            assert shared == {"num_inference_steps": 3, "guidance_scale": 2.0, "negative_prompt": "blue"}
    brackets = {"prompt": "a", "extra_params[seed]": "7", "video_params": '{"num_frames": 9}'}
    done = served.finished(served.http.post("/v1/videos", data=brackets).json()["id"])
    assert (done["seed"], done["seconds"]) == (7, f"{9 / 8:g}")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seed": ("a", b"1")}, "seed: expected text, got a file"),
        ({"prompt": ("a", b"x")}, "prompt: expected text, got a file"),
        ({"reference": ("a", PICTURE)}, "reference: unknown field; did you mean"),
        ({"input_reference": ("a", PICTURE), "image_reference": ("a", PICTURE)}, "input_reference: is given twice"),
        ({"input_reference": ("a", PICTURE), "image_reference": (None, "data:,")}, "input_reference: is given twice"),
    ],
)
def test_a_file_is_taken_only_where_one_is_meant(served: InstantServer, fields: dict[str, Any], words: str) -> None:
    answer = served.http.post("/v1/videos", files={"prompt": (None, "a"), **fields})
    assert said(answer, 400).startswith(words)


def test_a_negative_prompt_that_an_agent_of_the_task_ignores_is_refused(served: InstantServer) -> None:
    served.pool.negative = {"image"}
    try:
        body = {"prompt": "a", "negative_prompt": "blue"}
        words = said(served.http.post("/v1/videos", json=body), 400)
        assert words.startswith("negative_prompt: the agent video takes none")
        assert served.http.post("/v1/images/generations", json=body).status_code == 200
    finally:
        served.pool.negative = {"image", "video"}


def test_a_body_without_its_content_type_is_told_to_send_it(served: InstantServer) -> None:
    for headers in ({"content-type": "application/x-www-form-urlencoded"}, {}):
        answer = served.http.post("/v1/videos", content=b'{"prompt": "a"}', headers=headers)
        assert answer.status_code in (400, 415)
        assert "send Content-Type: application/json" in answer.json()["error"]["message"]


def test_a_model_is_named_by_its_agent_or_by_a_kind_that_only_one_agent_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(instant_server_module._AGENTS, "connect_videos", "other")
    other = "serving.agents.other={environment: opensora, kind: opensora, capabilities: [connect_videos]}"
    with instant_server(tmp_path, other) as server:
        assert server.front.models() == ["mora", "image", "other", "video", "sd3"]
        for task, model, allowed in (
            ("text_to_video", "video", "mora, video"), ("connect", "other", "mora, other"),
        ):  # fmt: skip
            assert said(post(server, task, "opensora"), 404) == f"model: expected one of {allowed}, got opensora"
            assert "model:" not in post(server, task, model).text


def post(server: InstantServer, task: str, model: str) -> Any:
    return server.http.post("/v1/videos", json={"prompt": "a", "task": task, "model": model})
