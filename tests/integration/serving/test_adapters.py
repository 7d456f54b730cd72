"""One server with LoRA adapters of two names, over real agents of tiny models: each request is made with its own."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click.testing
import mora_launch.generation.command
import numpy as np
import psutil
import pytest
from mora_data.reading.fitting import Clip
from mora_launch.cli import cli
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.decoding.video import read_video
from mora_launch.environments.venvs import ROOT
from mora_launch.serving.http.app import make_app
from mora_launch.serving.running_servers import RunningServers
from mora_launch.serving.terms import DEFAULT_TERMS, LoraChoice, Terms
from mora_launch.tasks.media import read_metadata
from mora_launch.web.access import Access
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console
from starlette.testclient import TestClient

from tests.adapters_by_hand import write_adapters

from .conftest import TINY

pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
TOKEN = "a-token-of-the-user"
WEIGHTS = {
    "image": ROOT / "models/tiny/sd3/transformer/diffusion_pytorch_model.safetensors",
    "video": ROOT / "models/tiny/opensora/transformer_i2v/diffusion_pytorch_model.safetensors",
}
INK, OIL, HALF_INK = (
    Terms(lora=LoraChoice(name=name, scale=scale)) for name, scale in (("ink", 1), ("oil", 1), ("ink", 0.5))
)
FRAME = np.full((64, 64, 3), 90, dtype=np.uint8)


@dataclass(frozen=True)
class Adapted:
    """Servers with adapters `ink`, for both agents, and `oil`, for the one that they fit."""

    servers: RunningServers
    config: TrainConfig
    folder: Path  # of adapters
    run: Path

    def works(self, capability: str, terms: Terms, *seeds: int) -> list[Any]:
        sample: dict[str, Any] = {"prompts": "a red circle"}
        if capability == "image_to_video":
            sample["images"] = FRAME
        shared = {"num_inference_steps": None, "guidance_scale": None}
        return [self.servers.pool.submit(capability, {**sample, "seeds": seed}, shared, terms=terms) for seed in seeds]

    def made(self, capability: str, terms: Terms = DEFAULT_TERMS, seed: int = 3) -> Clip:
        found: Clip = self.works(capability, terms, seed)[0].future.result(120)
        return found


@pytest.fixture(scope="module")
def adapted(servers: RunningServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapted]:
    folder = tmp_path_factory.mktemp("adapters")  # `servers` has made the tiny models
    for agent in ("image", "video"):
        write_adapters(WEIGHTS[agent], folder / "ink" / agent, seed=1)
    write_adapters(WEIGHTS["image"], folder / "oil", seed=2)
    config = load_config(TINY, [f"serving.adapters.folder={folder}"])
    with (
        RunDirectory.create(tmp_path_factory.mktemp("adapted") / "run", lock=True) as directory,
        RunningServers(config, directory, Console(quiet=True)) as running,
    ):
        yield Adapted(running, config, folder, directory.path)


@pytest.fixture
def http(adapted: Adapted, tmp_path: Path) -> Iterator[TestClient]:
    app = make_app(adapted.servers.pool, adapted.config, tmp_path, Access({"token": TOKEN}, None, None))
    with TestClient(app, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.mark.parametrize("capability", ["text_to_image", "image_to_video"])
def test_without_adapters_a_request_is_made_as_by_a_server_that_has_none(
    adapted: Adapted, servers: RunningServers, capability: str
) -> None:
    plain = replace(adapted, servers=servers).made(capability)
    assert np.array_equal(adapted.made(capability), plain)
    changed = [adapted.made(capability, terms) for terms in (INK, HALF_INK)]
    assert not np.array_equal(changed[0], plain)
    assert not np.array_equal(*changed)
    assert np.array_equal(adapted.made(capability), plain), "after adapters were used"


def test_adapters_without_an_agents_name_belong_to_the_agent_that_they_fit(adapted: Adapted) -> None:
    assert adapted.servers.pool.adapters.agents_of("ink") == ["image", "video"]
    assert adapted.servers.pool.adapters.agents_of("oil") == ["image"]
    assert np.array_equal(adapted.made("image_to_video", OIL), adapted.made("image_to_video"))
    assert not np.array_equal(adapted.made("text_to_image", OIL), adapted.made("text_to_image"))


def test_mixed_requests_are_grouped_and_each_is_what_it_is_alone(adapted: Adapted) -> None:
    kinds, seeds = (DEFAULT_TERMS, INK, OIL, HALF_INK), (1, 2, 3, 4)
    alone = {(terms, seed): adapted.made("text_to_image", terms, seed) for terms in kinds for seed in seeds}
    assert len({picture.tobytes() for picture in alone.values()}) == len(alone)
    together = {(terms, seed): adapted.works("text_to_image", terms, seed)[0] for seed in seeds for terms in kinds}
    for key, work in together.items():
        assert np.array_equal(work.future.result(120), alone[key]), key


def test_a_server_that_is_started_again_has_the_adapters_again(adapted: Adapted) -> None:
    before = adapted.made("text_to_image", INK)
    worker = next(worker for worker in adapted.servers.pool.workers if worker.role == "image.0")
    folder = f"{adapted.run}/roles/image.0/"
    server = next(child for child in psutil.Process().children(recursive=True) if folder in " ".join(child.cmdline()))
    server.kill()
    server.wait(60)
    deadline = time.monotonic() + 60
    while worker.is_connected:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert np.array_equal(adapted.made("text_to_image", INK), before)


def test_clients_find_adapters_among_the_models_and_name_them(adapted: Adapted, http: TestClient) -> None:
    models = {each["id"]: each for each in http.get("/v1/models").json()["data"]}
    assert {"mora", "image", "video", "mora:ink", "mora:oil"} <= set(models)
    assert models["mora:ink"]["parent"] == "mora"
    assert models["mora:ink"]["agents"] == ["image", "video"]
    assert http.get("/v1/models/mora:oil").json() == models["mora:oil"]

    def picture(**body: Any) -> str:
        answer = http.post("/v1/images/generations", json={"prompt": "a red circle", "seed": 3, **body})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"][0]["b64_json"])

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        bodies = [{}, {"lora": "ink"}, {"model": "mora:ink"}, {"lora": {"name": "ink", "scale": 0.5}}]
        plain, ink, model, half = threads.map(lambda body: picture(**body), bodies)
    assert ink == model
    assert len({plain, ink, half}) == 3
    assert base64.b64decode(ink).startswith(b"\x89PNG")


def test_a_video_is_made_with_the_adapters_and_records_their_hashes(adapted: Adapted, http: TestClient) -> None:
    body = {"prompt": "a red circle", "seed": 3, "enhance": False, "lora": {"name": "ink", "scale": 0.5}}
    job = http.post("/v1/videos", json=body).json()
    deadline = time.monotonic() + 120
    while (found := http.get(f"/v1/videos/{job['id']}").json())["status"] in ("queued", "in_progress"):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    assert (found["status"], found["lora"]) == ("completed", {"name": "ink", "scale": 0.5})
    content = http.get(f"/v1/videos/{job['id']}/content").content
    recorded = read_metadata(content)["lora"]
    assert recorded == {
        "name": "ink",
        "scale": 0.5,
        "sha256": adapted.servers.pool.adapters.catalog.entries["ink"].sha256,
    }


@pytest.fixture
def generate(adapted: Adapted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command on servers that already run, in an empty folder."""
    running = lambda *_: contextlib.nullcontext(adapted.servers)  # noqa: E731
    monkeypatch.setattr(mora_launch.generation.command, "RunningServers", running)
    monkeypatch.chdir(tmp_path)
    config = ("--config", str(TINY), "--set", f"serving.adapters.folder={adapted.folder}", "--steps", "4")

    def run(*words: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(cli, ["generate", *(() if "--repeat" in words else config), *words])

    return run


def test_generate_takes_adapters_by_name_and_repeats_with_the_same_ones_only(generate: Any) -> None:
    words = ("text-to-video", "--prompt", "a red circle", "--seed", "3", "--no-enhance")
    for more, output in (((), "plain.mp4"), (("--lora", "ink:0.5"), "out.mp4")):
        made = generate(*words, *more, "-o", output)
        assert made.exception is None, made.exception
    content = Path("out.mp4").read_bytes()
    clips = [read_video(each, "made", max_frames=20).frames for each in (content, Path("plain.mp4").read_bytes())]
    assert not np.array_equal(*clips)
    beside = json.loads(Path("out.mp4.json").read_text())
    assert (beside["mora"]["lora"], beside["lora"]["scale"]) == ("ink:0.5", 0.5)
    assert list(beside["config"]["serving"]["adapters"]["named"]) == ["ink"]
    assert "lora" not in json.loads(Path("plain.mp4.json").read_text())
    again = generate("--repeat", "out.mp4.json", "-o", "again.mp4")
    assert again.exception is None, again.exception
    assert "adapters ink from " in again.output
    assert Path("again.mp4").read_bytes() == content
    beside["lora"]["sha256"]["image"] = "0" * 64
    Path("other.json").write_text(json.dumps(beside))
    refused = generate("--repeat", "other.json", "-o", "never.mp4").exception
    assert "the adapters `ink` have changed since that run" in str(refused)
    assert not Path("never.mp4").exists()


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        ("ash", "lora: got the name 'ash', the known ones are ink, oil"),
        ("ink:2", "--lora: expected NAME or NAME:SCALE with 0 to 1, got ink:2"),
        ("ink:much", "--lora: expected NAME or NAME:SCALE"),
    ],
)
def test_generate_refuses_other_adapters(generate: Any, lora: str, told: str) -> None:
    assert told in str(generate("text-to-video", "--prompt", "a", "--lora", lora, "-o", "out.mp4").exception)
