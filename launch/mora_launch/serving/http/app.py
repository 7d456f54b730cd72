"""The application: endpoints, health and metrics, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mora_launch.config.train_config import TrainConfig
from mora_launch.serving.http.counting import Counting
from mora_launch.serving.http.front import Front, install_errors
from mora_launch.serving.http.gauges import PoolGauges
from mora_launch.serving.http.images import image_routes
from mora_launch.serving.http.jobs.video_jobs import VideoJobs
from mora_launch.serving.http.reading import get
from mora_launch.serving.http.requests.query import check_query
from mora_launch.serving.http.results.picture_files import PictureFiles
from mora_launch.serving.http.reviews import review_routes
from mora_launch.serving.http.stages import stage_routes
from mora_launch.serving.http.tasks import task_routes
from mora_launch.serving.http.video_content import content_routes
from mora_launch.serving.http.videos import video_routes
from mora_launch.serving.life.drain import Gate
from mora_launch.serving.life.health import WAIT_S, health, readiness
from mora_launch.serving.server_pool import ServerPool
from mora_launch.tasks.catalog import EXAMPLE_FILES
from mora_launch.web.access import Access
from mora_launch.web.guard import Guard
from mora_launch.web.page_files import PageFiles

_FORM_NBYTES = 1 << 20  # of a body without its files
PAGE_FILES = (
    "comparison.js", "field.js", "file_slot.js", "gallery.js", "job_actions.js", "job_address.js", "job_card.js",
    "job_list.js", "job_view.js", "jobs.js", "picture_view.js", "pictures.js", "review_view.js", "reviewer.js",
    "serve.js", "stage_row.js", "stage_words.js", "task_form.js", "task_tabs.js", *EXAMPLE_FILES,
)  # fmt: skip


def make_app(pool: ServerPool, config: TrainConfig, run: Path, access: Access) -> FastAPI:
    """Return the application for running servers.

    Args:
        run: run directory; its folder `videos` contains the results.
        access: access rules.
    """
    front = Front.over(pool, config, access.tenants)
    pool.queue.sends_ahead = not access.tenants
    jobs = VideoJobs(front, run / "videos")
    page = PageFiles("serve.html", PAGE_FILES)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        front.decoders.start()
        yield
        jobs.close()
        front.decoders.close()

    app = FastAPI(
        title="Mora", lifespan=lifespan, docs_url=None, redoc_url=None, dependencies=[Depends(check_query)]
    )  # fmt: skip
    install_errors(app)
    app.add_middleware(Gate, drain=front.drain)
    app.add_middleware(Counting, counters=pool.counters, expect=pool.queue.expect)
    app.include_router(image_routes(front, PictureFiles(run / "pictures", config.serving.keep_videos_s)))
    app.include_router(video_routes(front, jobs))
    app.include_router(content_routes(front, jobs))
    app.include_router(review_routes(jobs))
    app.include_router(stage_routes(jobs))
    app.include_router(task_routes(front))
    app.include_router(page.routes())
    _add_health(app, front, jobs)
    app.state.front, app.state.jobs = front, jobs
    most = config.serving.max_upload_nbytes + _FORM_NBYTES
    app.add_middleware(Guard, access=access, max_body_nbytes=most, pages=page.pages, assets=page.assets)
    return app


def _add_health(app: FastAPI, front: Front, jobs: VideoJobs) -> None:
    front.pool.counters.registry.register(PoolGauges(front, jobs))

    @get(app, "/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [_model(front, name) for name in front.models()]})

    @get(app, "/v1/models/{name}")
    async def model(name: str) -> Response:
        if name not in front.models():
            raise front.unknown_model(name, front.models())
        return JSONResponse(_model(front, name))

    @get(app, "/healthz")
    async def healthz() -> Response:
        return health()

    @get(app, "/readyz")
    async def readyz(request: Request) -> Response:
        is_ready = front.pool.is_ready
        status = "stopping" if front.drain.has_begun else "ready" if is_ready else "waiting for servers"
        connected: dict[str, bool] = {worker.role: worker.is_connected for worker in front.pool.workers}
        return readiness(request.scope, status, connected, front.drain.retry_after_s or WAIT_S)

    @get(app, "/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(front.pool.counters.registry), media_type=CONTENT_TYPE_LATEST)


def _model(front: Front, name: str) -> dict[str, Any]:
    about = {"id": name, "object": "model", "created": 0, "owned_by": "mora"}
    base, _, lora = name.partition(":")  # as of vLLM: adapters have a parent, and a root that tells what they are
    if lora:
        return {**about, "root": lora, "parent": base, "agents": front.pool.adapters.agents_of(lora)}
    return {**about, "root": front.checkpoint or name, "parent": None}
