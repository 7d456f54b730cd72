"""The six tasks of the paper by each configuration of tiny models, from the command line and over HTTP.

The models are random, so that no test waits for their pre-training.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mora_launch.generation.command
import numpy as np
import pytest
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.decoding.video import read_video
from mora_launch.serving.http.app import make_app
from mora_launch.serving.running_servers import RunningServers
from mora_launch.tasks.catalog import TASKS
from mora_launch.tasks.media import encode, png
from mora_launch.web.access import Access
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console
from starlette.testclient import TestClient

from tests.random_models import with_random_models

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
STEPS = "2"
NUM_GIVEN = 4  # frames of a given video
PICTURE = png(np.full((40, 56, 3), 90, dtype=np.uint8))
FILES: dict[str, tuple[str, ...]] = {
    "text_to_video": (),
    "image_to_video": ("a.png",),
    "extend": ("a.mp4",),
    "edit": ("a.mp4",),
    "connect": ("a.mp4", "b.mp4"),
    "simulate": ("a.mp4",),
}


@dataclass(frozen=True)
class Served:
    """A configuration with running servers."""

    path: Path
    config: TrainConfig
    servers: RunningServers

    def num_frames(self, task: str) -> int:
        """Length of the result of a task."""
        clip = self.config.clip.num_frames
        transition = int(self.servers.pool.describe("connect_videos")["num_frames"])
        return {
            "text_to_video": clip,
            "image_to_video": clip,
            "extend": NUM_GIVEN + clip - 1,
            "edit": NUM_GIVEN,
            "connect": 2 * NUM_GIVEN + transition - 2,
            "simulate": NUM_GIVEN,
        }[task]

    def check(self, content: bytes, task: str) -> None:
        """Assert that a video is the result of a task: its length and size."""
        frames = read_video(content, "made", max_frames=200).frames
        clip = self.config.clip
        assert frames.shape == (self.num_frames(task), clip.height, clip.width, 3), task


@pytest.fixture(scope="module", params=["tiny-svd", "tiny-wan"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = with_random_models(f"{request.param}.yaml", tmp_path_factory.mktemp("config"))
    config = load_config(path, [])
    with (
        RunDirectory.create(tmp_path_factory.mktemp("served") / "run", lock=True) as directory,
        RunningServers(config, directory, Console(quiet=True)) as running,
    ):
        yield Served(path, config, running)


@pytest.fixture
def files(served: Served, tmp_path: Path) -> Path:
    """A folder with the files that tasks need."""
    (tmp_path / "a.png").write_bytes(PICTURE)
    for name, colour in (("a.mp4", 200), ("b.mp4", 40)):
        frames = np.full((NUM_GIVEN, 40, 56, 3), colour, dtype=np.uint8)
        (tmp_path / name).write_bytes(encode(frames, served.config.clip.fps, "mp4", {}))
    return tmp_path


def options_of(names: Sequence[str], folder: Path) -> list[str]:
    """Files as options of the command line."""
    return [word for name in names for word in ("--image" if name == "a.png" else "--video", str(folder / name))]


def test_the_command_line_does_all_six_tasks_and_repeats_each_to_the_same_bytes(
    served: Served, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = contextlib.nullcontext(served.servers)
    monkeypatch.setattr(mora_launch.generation.command, "RunningServers", lambda *_: running)
    assert set(FILES) == set(TASKS)
    for task, names in FILES.items():
        out, again = files / f"{task}.mp4", files / f"{task}-again.mp4"
        words = ["generate", task.replace("_", "-"), "--config", str(served.path), "--steps", STEPS, "--no-enhance"]
        words += ["--prompt", "a red circle moves left", "--seed", "3", *options_of(names, files), "-o", str(out)]
        made = CliRunner().invoke(cli, words)
        assert made.exception is None, (task, made.output, made.exception)
        served.check(out.read_bytes(), task)
        repeated = CliRunner().invoke(cli, ["generate", "--repeat", f"{out}.json", "-o", str(again)])
        assert repeated.exception is None, (task, repeated.output, repeated.exception)
        assert again.read_bytes() == out.read_bytes(), task


def test_http_does_all_six_tasks_and_an_edit_of_a_picture(served: Served, files: Path) -> None:
    access = Access({"token": "a-token-of-the-user"}, None, None)
    app = make_app(served.servers.pool, served.config, files, access)
    with TestClient(app, headers={"authorization": "Bearer a-token-of-the-user"}) as http:
        told = {task["id"]: task for task in http.get("/v1/tasks").json()["data"]}
        for task, names in FILES.items():
            assert told[task]["least_num_videos"] <= len(names)
            parts = [("input_reference", (name, (files / name).read_bytes())) for name in names]
            data = {"task": task, "prompt": "a red circle moves left", "num_inference_steps": STEPS, "seed": "3"}
            answer = http.post("/v1/videos", data=data, files=parts or None)
            assert answer.status_code == 200, (task, answer.text)
            job = answer.json()
            deadline = time.monotonic() + 300
            while job["status"] in ("queued", "in_progress"):
                assert time.monotonic() < deadline, job
                time.sleep(0.05)
                job = http.get(f"/v1/videos/{job['id']}").json()
            assert job["status"] == "completed", (task, job)
            served.check(http.get(f"/v1/videos/{job['id']}/content").content, task)
        picture = {"prompt": "in blue", "seed": "3", "num_inference_steps": STEPS, "response_format": "b64_json"}
        edited = http.post("/v1/images/edits", data=picture, files=[("image", ("a.png", PICTURE))])
        assert edited.status_code == 200, edited.text
        assert len(json.loads(edited.text)["data"]) == 1
