"""The endpoints of `mora serve` over a pool that has the result of a request as soon as it is submitted."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from mora_launch.checkpoints.adapter_catalog import AdapterCatalog, NamedAdapters
from mora_launch.config.train_config import load_config
from mora_launch.serving.adapter_choices import AdapterChoices
from mora_launch.serving.counters import Counters
from mora_launch.serving.http.front import Front, install_errors
from mora_launch.serving.http.images import image_routes
from mora_launch.serving.http.jobs.video_jobs import VideoJobs
from mora_launch.serving.http.requests.query import check_query
from mora_launch.serving.http.results.picture_files import PictureFiles
from mora_launch.serving.http.reviews import review_routes
from mora_launch.serving.http.stages import stage_routes
from mora_launch.serving.http.tasks import task_routes
from mora_launch.serving.http.video_content import content_routes
from mora_launch.serving.http.videos import video_routes
from mora_launch.serving.work_queue import Work

TINY = Path(__file__).resolve().parents[3] / "configs" / "tiny.yaml"
SIDE = 32
NUM_FRAMES = 5
_AGENTS = {
    "text_to_image": "image", "image_to_image": "image", "image_to_video": "video", "extend_video": "video",
    "connect_videos": "video",
}  # fmt: skip


class InstantPool:
    """Capabilities whose work is done when it is submitted.

    Attributes:
        submitted: capability and shared arguments of all work.
        waits: whether work is left undone.
        negative: agents that take a negative prompt.
        agents: the agent of each capability.
    """

    def __init__(self) -> None:
        self.agents = dict(_AGENTS)
        self.submitted: list[tuple[str, dict[str, Any]]] = []
        self.works: list[Work] = []
        self.waits = False
        self.negative = {"image", "video"}
        self.adapters = AdapterChoices(AdapterCatalog())
        self.counters = Counters()

    def describe(self, capability: str) -> dict[str, Any]:
        agent = self.agents[capability]
        return {
            "agent": agent, "model": "instant", "height": SIDE, "width": SIDE, "num_frames": NUM_FRAMES,
            "size_multiple": 16, "num_inference_steps": 4, "least_num_inference_steps": 1, "guidance_scale": 3.0,
            "takes_negative_prompt": agent in self.negative,
        }  # fmt: skip

    def capabilities(self) -> list[str]:
        return list(self.agents)

    def agents_of(self, capabilities: Collection[str] = ()) -> set[str]:
        return {agent for name, agent in self.agents.items() if name in capabilities or not capabilities}

    def submit(self, capability: str, sample: dict[str, Any], shared: dict[str, Any], *rest: Any, **more: Any) -> Work:
        self.submitted.append((capability, shared))
        work = Work(capability, sample, shared, *rest, **more)
        self.works.append(work)
        if not self.waits:
            work.finish(np.full(self._shape(capability, shared), sample["seeds"] % 251, dtype=np.uint8))
        return work

    def _shape(self, capability: str, shared: dict[str, Any]) -> tuple[int, ...]:
        if capability == "edit_image":
            return SIDE, SIDE, 3
        if capability.endswith("to_image"):
            return shared.get("height") or SIDE, shared.get("width") or SIDE, 3
        return NUM_FRAMES - (capability == "extend_video"), SIDE, SIDE, 3


@dataclass
class InstantServer:
    """The application and its parts."""

    app: FastAPI
    http: TestClient
    pool: InstantPool
    jobs: VideoJobs
    front: Front

    def name_adapters(self, agents: Mapping[str, Sequence[str]]) -> None:
        """Let requests name adapters; `agents` has the agents that each name is for."""
        some_file: Any = SimpleNamespace(sha256="a hash")
        entries = {
            name: NamedAdapters(name, "a folder", dict.fromkeys(having, some_file)) for name, having in agents.items()
        }
        self.pool.adapters = AdapterChoices(AdapterCatalog(entries))
        for name, having in agents.items():
            for agent in having:
                self.pool.adapters.learn(agent, [name], [])

    def finished(self, identifier: str) -> dict[str, Any]:
        """The job, once it has ended."""
        deadline = time.monotonic() + 60
        while (job := self.http.get(f"/v1/videos/{identifier}").json())["status"] in ("queued", "in_progress"):
            assert time.monotonic() < deadline, job
            time.sleep(0.01)
        return dict(job)

    def video(self, **body: Any) -> dict[str, Any]:
        """A finished video."""
        answer = self.http.post("/v1/videos", json={"prompt": "a red circle", "seed": 3, **body})
        assert answer.status_code == 200, answer.text
        return self.finished(answer.json()["id"])


@contextmanager
def instant_server(folder: Path, *changes: str) -> Iterator[InstantServer]:
    """Serve inside the block, from a run directory in `folder`."""
    config = load_config(TINY, changes)
    pool: Any = InstantPool()
    front = Front.over(pool, config)
    jobs = VideoJobs(front, folder / "videos")
    app = FastAPI(dependencies=[Depends(check_query)])
    install_errors(app)
    app.include_router(image_routes(front, PictureFiles(folder / "pictures", config.serving.keep_videos_s)))
    app.include_router(video_routes(front, jobs))
    app.include_router(content_routes(front, jobs))
    app.include_router(review_routes(jobs))
    app.include_router(stage_routes(jobs))
    app.include_router(task_routes(front))
    front.decoders.start()
    try:
        with TestClient(app, base_url="http://127.0.0.1:8000") as http:
            yield InstantServer(app, http, pool, jobs, front)
    finally:
        jobs.close()
        front.decoders.close()


def said(answer: Any, status: int) -> str:
    """The message of an error with this status."""
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])
