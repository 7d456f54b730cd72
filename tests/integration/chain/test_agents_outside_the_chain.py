"""An agent that `chain` leaves out serves requests; training and rounds do not start it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_launch.config.train_config import load_config
from mora_launch.decoding.video import read_video
from mora_launch.serving.http.app import make_app
from mora_launch.serving.running_servers import RunningServers
from mora_launch.tasks.media import encode, png
from mora_launch.web.access import Access
from mora_runtime.errors import MoraError
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console
from starlette.testclient import TestClient

from tests.integration.training.mora_process import ROOT, MoraTrain

pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
PAIR = ROOT / "tests" / "toy_agents" / "pair.yaml"
OUTSIDE = (
    "agents.editor={environment: toys, kind: editor, options: {seed: 9}}", "chain=[image, video]",
    "serving.servers={editor: 1}", "samples.enabled=false",
)  # fmt: skip
CLIP = encode(np.full((6, 32, 32, 3), 200, dtype=np.uint8), 8.0, "mp4", {})


def roles(run: Path) -> set[str]:
    """The processes that a run has started."""
    return {path.name for path in (run / "roles").iterdir()}


def train(run: Path, *options: str, num_steps: int) -> None:
    code, said = MoraTrain(run, [*OUTSIDE, f"training.num_steps={num_steps}"], *options, config=str(PAIR)).finish()
    assert code == 0, said


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, made by two commands."""
    run = tmp_path_factory.mktemp("jobs") / "run"
    train(run, num_steps=1)
    train(run, "--resume", num_steps=2)
    return run


@pytest.fixture(scope="module")
def servers(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServers]:
    """The agents of the chain with the weights of the run, and the editor."""
    config = load_config(PAIR, [*OUTSIDE, f"serving.checkpoint={trained}"])
    with (
        RunDirectory.create(tmp_path_factory.mktemp("served") / "run", lock=True) as directory,
        RunningServers(config, directory, Console(quiet=True)) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def http(servers: RunningServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    access = Access({"token": "a-token-of-the-user"}, None, None)
    app = make_app(servers.pool, load_config(PAIR, OUTSIDE), tmp_path_factory.mktemp("front"), access)
    with TestClient(app, headers={"authorization": "Bearer a-token-of-the-user"}) as client:
        yield client


def test_training_starts_the_chain_alone_and_resumes(trained: Path) -> None:
    assert roles(trained) == {"coordinator.0", "image.0", "video.0"}
    folder = trained / "checkpoints" / "step-00000002"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"coordinator", "image", "video"}


def test_the_editor_serves_next_to_the_trained_chain(servers: RunningServers) -> None:
    assert {worker.role: worker.capabilities for worker in servers.pool.workers} == {
        "image.0": ("text_to_image", "image_to_image"),
        "video.0": ("image_to_video", "extend_video", "connect_videos"),
        "editor.0": ("edit_image",),
    }


@pytest.mark.parametrize(("path", "data"), [("/v1/videos/edits", {}), ("/v1/videos", {"task": "simulate"})])
def test_a_video_is_changed_by_the_editor(http: TestClient, path: str, data: dict[str, str]) -> None:
    field = "video" if path.endswith("edits") else "input_reference"
    data |= {"prompt": "make it green", "seed": "3"}
    answer = http.post(path, data=data, files=[(field, ("a.mp4", CLIP))])
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = {"status": "queued"}
    while job["status"] in ("queued", "in_progress"):
        job = http.get(f"/v1/videos/{answer.json()['id']}").json()
    assert job["status"] == "completed", job
    content = http.get(f"/v1/videos/{job['id']}/content").content
    assert read_video(content, "made", max_frames=50).frames.shape == (6, 32, 32, 3)
    made = [line for line in http.get("/metrics").text.splitlines() if line.startswith("mora_batch_size_count")]
    assert any('"edit_image"' in line and not line.endswith(" 0.0") for line in made)
    assert not any('"image_to_image"' in line and not line.endswith(" 0.0") for line in made)
    refused = http.post(path, data={**data, "strength": "0.5"}, files=[(field, ("a.mp4", CLIP))])
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("strength: the agent editor takes none")


def test_a_picture_is_changed_by_the_editor_alone_and_in_a_batch(http: TestClient) -> None:
    picture = ("a.png", png(np.full((32, 32, 3), 90, dtype=np.uint8)))

    def edited(seed: int, n: int) -> list[str]:
        data = {"prompt": "in blue", "seed": str(seed), "n": str(n)}
        answer = http.post("/v1/images/edits", data=data, files=[("image", picture)])
        assert answer.status_code == 200, answer.text
        return [each["b64_json"] for each in answer.json()["data"]]

    assert edited(3, 2) == [*edited(3, 1), *edited(4, 1)]


def test_the_command_line_edits_with_it_and_refuses_a_strength(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(CLIP)
    settings = [word for change in OUTSIDE for word in ("--set", change)]
    words = ["generate", "edit", "--config", str(PAIR), *settings, "--checkpoint", str(trained), "--prompt", "in blue"]
    words += ["--video", str(tmp_path / "a.mp4"), "-o", str(tmp_path / "out.mp4")]
    made = CliRunner().invoke(cli, words)
    assert made.exception is None, made.output
    beside = json.loads((tmp_path / "out.mp4.json").read_text())
    assert "edit_image" in beside["models"]
    refused = CliRunner().invoke(cli, [*words, "--strength", "0.5"])
    assert isinstance(refused.exception, MoraError)
    assert str(refused.exception).startswith("strength: the agent editor takes none")


def test_rounds_run_the_chain_alone(tmp_path: Path) -> None:
    small = [
        "synthesis.num_rounds=1", "synthesis.prompts_per_round=1", "synthesis.num_candidates=2",
        "synthesis.num_evaluation_prompts=1", "training.num_steps=1", "training.batch_size=1",
        "training.micro_batch_size=1",
    ]  # fmt: skip
    run = tmp_path / "run"
    job = MoraTrain(run, [*OUTSIDE, *small], command=("synthesize", str(PAIR), "--run", str(run)))
    code, said = job.finish()
    assert code == 0, said
    assert roles(run) == {"candidates", "coordinator.0", "image.0", "video.0"}
