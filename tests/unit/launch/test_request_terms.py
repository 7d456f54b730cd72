"""The fields `lora`, `priority` and `model` of requests, and their cost, up to the work that is submitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mora_launch.serving.terms import LoraChoice
from mora_launch.tasks.errors import BadRequest

from tests.unit.launch.instant_server import NUM_FRAMES, SIDE, InstantServer, instant_server

HALF_INK = LoraChoice(name="ink", scale=0.5)
CLIP = NUM_FRAMES * SIDE * SIDE * 4 / 1e6  # cost of one clip with the agent's 4 steps
PICTURE = SIDE * SIDE * 4 / 1e6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstantServer]:
    with instant_server(tmp_path_factory.mktemp("run")) as made:
        made.name_adapters({"ink": ["image"], "motion": ["video"]})
        yield made


def picture(server: InstantServer, **body: Any) -> Any:
    return server.http.post("/v1/images/generations", json={"prompt": "a red circle", "seed": 3, **body})


def refusal(answer: Any, status: int = 400) -> tuple[str, str]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    return error["param"], error["message"]


@pytest.mark.parametrize(
    ("body", "lora"),
    [
        ({}, None),
        ({"lora": None}, None),
        ({"lora": "ink"}, LoraChoice(name="ink")),
        ({"model": "mora:ink"}, LoraChoice(name="ink")),
        ({"model": "mora:ink", "lora": {"name": "ink", "scale": 0.5}}, HALF_INK),
        ({"lora": {"name": "ink", "scale": 0.5}}, HALF_INK),
        ({"lora": {"lora_name": "ink", "lora_scale": 0.5, "int_id": 7}}, HALF_INK),
        ({"lora": {"adapter": "ink", "scale": "0.5"}}, HALF_INK),
    ],
)
def test_adapters_are_named_as_todays_servers_take_them(
    server: InstantServer, body: dict[str, Any], lora: LoraChoice | None
) -> None:
    assert picture(server, **body).status_code == 200
    assert server.pool.works[-1].terms.lora == lora


def test_a_model_that_does_not_exist_is_refused_with_all_that_do(server: InstantServer) -> None:
    for path in ("images/generations", "videos"):
        for model, hint in (("oil", "got oil"), ("ink", "got ink; the adapters `ink` are the model mora:ink")):
            answer = server.http.post(f"/v1/{path}", json={"prompt": "a red circle", "model": model})
            name, said = refusal(answer, 404)
            assert name == "model"
            assert said.startswith("model: expected one of mora, ")
            assert "mora:ink, mora:motion, got" in said
            assert said.endswith(hint)


def test_a_form_names_adapters_as_text_as_json_or_by_key(server: InstantServer) -> None:
    png = picture(server).json()["data"][0]["b64_json"]
    for fields in ({"lora": '{"name": "ink", "scale": 0.5}'}, {"lora[name]": "ink", "lora[scale]": "0.5"}):
        data = {"prompt": "blue", "image": f"data:image/png;base64,{png}", **fields}
        answer = server.http.post("/v1/images/edits", data=data, files=[("none", (None, ""))][:0])
        assert answer.status_code == 200, answer.text
        assert server.pool.works[-1].terms.lora == HALF_INK


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"lora": "oil"}, "got the name 'oil', the known ones are ink, motion"),
        ({"lora": "../ink"}, "got the name '../ink', the known ones are ink, motion"),
        ({"lora": "motion"}, "`motion` has adapters for video, this request uses image"),
        (
            {"lora": {"name": "ink", "local_path": "/etc"}},
            "unknown field `local_path`; expected `name` and `scale`; a server",
        ),
        ({"lora": {"name": "ink", "scale": 1.5}}, "expected a `scale` of 0 to 1, got 1.5"),
        ({"lora": {"name": "ink", "scale": "much"}}, "expected a number"),
        ({"lora": {"scale": 1}}, "expected a text as `name`"),
        ({"lora": ["ink"]}, "expected a name or an object with `name` and `scale`, got list"),
        ({"lora": "{"}, "is not"),
        ({"lora": "motion", "model": "mora:ink"}, "names `motion` and model names `ink`"),
    ],
)
def test_other_adapters_are_refused_with_the_known_names(
    server: InstantServer, body: dict[str, Any], told: str
) -> None:
    num_works = len(server.pool.works)
    param, message = refusal(picture(server, **body))
    assert param == "lora"
    assert told in message
    assert len(server.pool.works) == num_works


def test_an_unknown_model_with_a_colon_is_a_model_that_does_not_exist(server: InstantServer) -> None:
    assert refusal(picture(server, model="mora:oil"), 404)[0] == "model"


def test_a_server_without_adapters_says_so(tmp_path: Path) -> None:
    with instant_server(tmp_path) as bare:
        assert "the configuration has no serving.adapters" in refusal(picture(bare, lora="ink"))[1]


def test_the_adapters_of_a_video_are_those_of_any_of_its_agents_and_are_recorded(server: InstantServer) -> None:
    for name in ("ink", "motion"):
        first = len(server.pool.works)
        job = server.video(lora={"name": name, "scale": 0.25}, priority=-3)
        assert (job["status"], job["lora"]) == ("completed", {"name": name, "scale": 0.25})
        terms = [work.terms for work in server.pool.works[first:]]
        assert {(each.lora, each.priority) for each in terms} == {(LoraChoice(name=name, scale=0.25), -3)}
    body = {"prompt": "x", "task": "text_to_video", "lora": "oil"}
    assert refusal(server.http.post("/v1/videos", json=body))[0] == "lora"


@pytest.mark.parametrize("priority", [-1001, 1001, 2.5, "soon"])
def test_a_priority_is_a_whole_number_within_its_bounds(server: InstantServer, priority: Any) -> None:
    assert refusal(picture(server, priority=priority))[0] == "priority"
    assert refusal(server.http.post("/v1/videos", json={"prompt": "x", "priority": priority}))[0] == "priority"


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        ({}, PICTURE + CLIP),
        ({"num_inference_steps": 8}, 2 * (PICTURE + CLIP)),
        ({"num_frames": 1 + 3 * (NUM_FRAMES - 1)}, PICTURE + 3 * CLIP),
    ],
)
def test_a_video_costs_its_stages(server: InstantServer, body: dict[str, Any], cost: float) -> None:
    job = server.video(**body)
    assert server.jobs.get(job["id"]).cost == pytest.approx(cost)


def test_what_can_never_fit_is_refused_for_good_with_field_and_limit(tmp_path: Path) -> None:
    with instant_server(tmp_path, f"serving.max_waiting_cost={CLIP}") as small:
        assert picture(small, n=5).status_code == 200
        field, message = refusal(picture(small, n=6))
        assert field == "num_inference_steps"
        assert f"expected at most {CLIP:.4g}" in message
        assert refusal(small.http.post("/v1/videos", json={"prompt": "x"}))[0] == "seconds"
        assert small.front.admission.num_admitted == 0


def test_the_default_limit_admits_as_many_default_requests_as_the_number(tmp_path: Path) -> None:
    changes = ("serving.max_waiting=30000", "serving.max_seconds=0.1", "serving.max_frames_read=8")
    with instant_server(tmp_path, *changes) as made:
        made.front.admission.check_fits(30000 * (PICTURE + CLIP), "seconds")
        with pytest.raises(BadRequest, match="megapixel-steps"):
            made.front.admission.check_fits(30001 * (PICTURE + CLIP), "seconds")
        for _ in range(30000):
            made.front.admission.enter("", PICTURE + CLIP)


def test_the_default_limit_admits_what_all_other_limits_admit(tmp_path: Path) -> None:
    with instant_server(tmp_path, "serving.max_waiting=1", "serving.max_seconds=3") as made:
        longest = {"num_frames": 360, "fps": 120, "num_inference_steps": 1000}
        assert made.video(**longest)["status"] == "completed"
        assert picture(made, n=10, num_inference_steps=1000).status_code == 200
