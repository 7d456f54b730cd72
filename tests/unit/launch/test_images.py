"""The image endpoints when their client disconnects, over a pool that never finishes its work."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from mora_launch.config.train_config import load_config
from mora_launch.serving.http.front import Front, install_errors
from mora_launch.serving.http.images import image_routes
from mora_launch.serving.http.results.picture_files import PictureFiles
from mora_launch.serving.work_queue import Work

TINY = Path(__file__).resolve().parents[3] / "configs" / "tiny.yaml"


class IdlePool:
    """Accepts work and does none."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.were_cancelled: list[bool] = []

    def describe(self, capability: str) -> dict[str, Any]:
        return {"agent": "image", "height": 16, "width": 16, "least_num_inference_steps": 1}

    def capabilities(self) -> list[str]:
        return ["text_to_image"]

    def submit(self, capability: str, sample: dict[str, Any], shared: dict[str, Any], *rest: Any, **more: Any) -> Work:
        self.works.append(Work(capability, sample, shared))
        return self.works[-1]

    def forget(self) -> None:
        """Drop the works, as a server does with cancelled ones."""
        self.were_cancelled = [work.is_cancelled for work in self.works]
        self.works.clear()
        gc.collect()


async def ask_and_go(app: FastAPI, pool: IdlePool, **fields: Any) -> list[str]:
    """Send a request for pictures and disconnect at once; returns the errors that the event loop then reports."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    body = json.dumps({"prompt": "a cat", "n": 2, **fields}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        """Discard the message."""

    headers = [(b"content-type", b"application/json")]
    path = "/v1/images/generations"
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "asgi": {}}
    await asyncio.wait_for(app(scope, receive, send), 20)
    await asyncio.sleep(0)  # the works' errors come to the loop
    pool.forget()
    return complaints


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_leaves_nothing_behind(stream: bool, tmp_path: Path) -> None:
    pool: Any = IdlePool()
    front = Front.over(pool, load_config(TINY, []))
    app = FastAPI()
    install_errors(app)
    app.include_router(image_routes(front, PictureFiles(tmp_path / "pictures", 60.0)))
    assert asyncio.run(ask_and_go(app, pool, stream=stream)) == []
    assert front.admission.num_admitted == 0
    assert pool.were_cancelled == [True, True]
