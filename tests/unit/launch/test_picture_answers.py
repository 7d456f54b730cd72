"""Pictures come in the format that is asked for, inside the answer or as files that expire."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_launch.serving.http.results import picture_files
from mora_launch.serving.http.results.picture_files import PictureFiles
from mora_launch.serving.http.results.picture_format import PictureFormat
from PIL import Image

from tests.unit.launch.instant_server import SIDE, InstantServer, instant_server, said

PATH = "/v1/images/generations"
ADDRESS = re.compile(r"http://127\.0\.0\.1:8000/v1/images/files/[\w-]{32}\.(png|jpeg|webp)")
PNG = PictureFormat()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstantServer]:
    with instant_server(tmp_path_factory.mktemp("pictures"), "serving.sizes=['64x48', '50x50']") as server:
        yield server


def content_of(served: InstantServer, datum: dict[str, Any]) -> bytes:
    """The picture of an answer, wherever it is."""
    if "b64_json" in datum:
        return base64.b64decode(datum["b64_json"])
    assert ADDRESS.fullmatch(datum["url"]), datum
    return bytes(served.http.get(datum["url"]).content)


@pytest.mark.parametrize("way", ["b64_json", "url"])
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_has_the_format_and_comes_the_way_that_is_asked_for(
    served: InstantServer, kind: str, way: str
) -> None:
    body = {"prompt": "a cat", "seed": 9, "n": 2, "output_format": kind, "response_format": way}
    answer = served.http.post(PATH, json=body).json()
    assert answer["output_format"] == kind
    assert [datum["seed"] for datum in answer["data"]] == [9, 10]
    for datum in answer["data"]:
        assert (way in datum, len({"url", "b64_json"} & set(datum))) == (True, 1)
        with Image.open(io.BytesIO(content_of(served, datum))) as picture:
            assert (picture.format, picture.size) == (kind.upper(), (SIDE, SIDE))
            assert abs(int(np.asarray(picture.convert("RGB")).mean()) - datum["seed"]) <= 1


def test_an_answer_names_the_adapters_that_were_chosen(served: InstantServer) -> None:
    served.name_adapters({"ink": ["image"]})
    lora = {"name": "ink", "scale": 0.5}
    assert served.http.post(PATH, json={"prompt": "a cat", "lora": lora}).json()["lora"] == lora
    chosen = served.http.post(PATH, json={"prompt": "a cat", "model": "mora:ink"}).json()["lora"]
    assert chosen == {"name": "ink", "scale": 1.0}
    assert "lora" not in served.http.post(PATH, json={"prompt": "a cat"}).json()
    events = served.http.post(PATH, json={"prompt": "a cat", "lora": lora, "stream": True}).text.split("\n\n")
    last = next(event for event in events if event.startswith("event: image_generation.completed"))
    assert json.loads(last.partition("data: ")[2])["lora"] == lora


@pytest.mark.parametrize("prompt", [None, "", "  "])
def test_a_request_without_a_prompt_is_told_to_describe_a_picture(served: InstantServer, prompt: str | None) -> None:
    for path, result in ((PATH, "picture"), ("/v1/images/edits", "picture"), ("/v1/videos", "video")):
        words = said(served.http.post(path, json={"prompt": prompt}), 400)
        assert words == f"prompt: expected a text, got none; describe what the {result} shows"


def test_the_quality_of_a_picture_is_the_compression_that_is_asked_for() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for kind in ("jpeg", "webp"):
        sizes = [len(PictureFormat(kind, quality).encode(noise)) for quality in (0, 50, 100)]
        assert sizes == sorted(set(sizes)), kind


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"output_format": "gif"}, "output_format: expected one of png, jpeg, webp, got gif"),
        ({"output_compression": 50}, "output_compression: png keeps every bit; give output_format=jpeg or webp"),
        ({"output_format": "webp", "output_compression": 101}, "output_compression: expected 0 to 100, got 101"),
        ({"response_format": "file"}, "response_format: expected one of b64_json, url, got file"),
        ({"size": "60x50"}, "size: expected one of 32x32, 64x48, got 60x50; the nearest is 64x48"),
        ({"width": 50, "height": 50}, "size: expected one of 32x32, 64x48, got 50x50; the nearest is 64x48"),
    ],
)
def test_what_a_picture_cannot_be_is_refused(served: InstantServer, body: dict[str, Any], words: str) -> None:
    assert words in said(served.http.post(PATH, json={"prompt": "a cat", **body}), 400)
    assert served.front.admission.num_admitted == 0


def test_a_picture_has_one_of_the_sizes_of_the_configuration(served: InstantServer) -> None:
    for size in ({"size": "64x48"}, {"width": 64, "height": 48}):
        (datum,) = served.http.post(PATH, json={"prompt": "a cat", **size}).json()["data"]
        with Image.open(io.BytesIO(content_of(served, datum))) as picture:
            assert picture.size == (64, 48)


def test_events_carry_the_address_of_a_picture(served: InstantServer) -> None:
    body = {"prompt": "a cat", "stream": True, "response_format": "url", "output_format": "webp"}
    lines = served.http.post(PATH, json=body).text.splitlines()
    event = json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))
    assert event["type"] == "image_generation.completed"
    assert served.http.get(event["url"]).headers["content-type"] == "image/webp"


def test_a_prompt_is_rewritten_only_if_the_request_asks_for_it(served: InstantServer) -> None:
    for body, prompt in (({}, "a cat"), ({"enhance": False}, "a cat"), ({"enhance": True}, "A cat. The scene is")):
        (datum,) = served.http.post(PATH, json={"prompt": "a cat", **body}).json()["data"]
        used = served.pool.works[-1].sample["prompts"]
        assert used.startswith(prompt)
        assert datum.get("revised_prompt") == (used if body.get("enhance") else None)


def test_a_picture_is_edited_from_a_data_url(served: InstantServer) -> None:
    url = f"data:image/png;base64,{base64.b64encode(PNG.encode(np.zeros((8, 8, 3), np.uint8))).decode()}"
    for image in (url, {"image_url": url}):
        answer = served.http.post("/v1/images/edits", json={"prompt": "in blue", "image": image})
        assert answer.status_code == 200, answer.text
    refused = served.http.post("/v1/images/edits", json={"prompt": "in blue", "image": "http://x/a.png"})
    assert "image: expected a file, or a data: URL" in said(refused, 400)


@pytest.mark.parametrize("name", ["x" * 32 + ".png", "..%2f..%2fetc%2fpasswd", "%00", "a.png"])
def test_no_other_name_finds_a_file(served: InstantServer, name: str) -> None:
    assert served.http.get(f"/v1/images/files/{name}").status_code == 404


def test_pictures_expire_also_those_of_an_earlier_server(tmp_path: Path) -> None:
    files = PictureFiles(tmp_path / "pictures", 1000.0)
    old, new = files.store(b"old", PNG), files.store(b"new", PNG)
    past_s = time.time() - 2000
    os.utime(tmp_path / "pictures" / old, (past_s, past_s))
    (tmp_path / "pictures" / "notes.txt").write_text("not ours")
    following = PictureFiles(tmp_path / "pictures", 1000.0)
    assert following.find(old) is None
    assert following.find(new) == (tmp_path / "pictures" / new, "image/png")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {new, "notes.txt"}
    brief = PictureFiles(tmp_path / "pictures", 0.0)
    assert brief.find(new) is None
    assert not (tmp_path / "pictures" / new).exists()


def test_the_oldest_pictures_make_room_for_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_files, "MAX_NUM_KEPT_PICTURES", 3)
    monkeypatch.setattr(picture_files, "MAX_KEPT_PICTURES_NBYTES", 100)
    files = PictureFiles(tmp_path / "pictures", 1000.0)
    names = [files.store(b"x" * 10, PNG) for _ in range(4)]
    assert [files.find(name) is not None for name in names] == [False, True, True, True]
    large = files.store(b"x" * 90, PNG)
    assert [files.find(name) is not None for name in (*names, large)] == [False, False, False, True, True]
    assert len(list((tmp_path / "pictures").iterdir())) == 2
