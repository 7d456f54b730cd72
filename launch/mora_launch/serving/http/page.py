"""The web page (Gradio): the six tasks, progress, and the review of each stage. Several may watch and decide."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response
from mora_runtime.errors import MoraError
from pydantic import ValidationError

from mora_launch.markdown import as_plain
from mora_launch.review.decision import Action, Decision, first_fault
from mora_launch.serving.http.front import CHAIN_MODEL, Front
from mora_launch.serving.http.video_job import VideoJob
from mora_launch.serving.http.video_jobs import VideoJobs
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.inputs import read_inputs
from mora_launch.tasks.media import encode
from mora_launch.tasks.request import MAX_SEED, TASKS, TaskRequest, check_request

PATH = "/page"
_EVERY_S = 1.0
_SHOWN_HEIGHT = 360  # pixels of a candidate on the page
_STYLE = "#candidate img {width: 100%; height: 100%; object-fit: contain}"  # small pictures are enlarged


class Page:
    """What the buttons do; the page itself keeps a job's id and the version of its session that it shows."""

    def __init__(self, front: Front, jobs: VideoJobs) -> None:
        self._front = front
        self._jobs = jobs

    def start(
        self, task: str, prompt: str, files: list[bytes] | None, seconds: float | None, seed: float | None, review: bool
    ) -> str:
        """Create a job; returns its id."""
        settings = self._front.config.serving
        image, videos = read_inputs(files or [], "files", settings, self._front.video_size())
        drawn = random.SystemRandom().randrange(MAX_SEED) if seed is None or seed < 0 else int(seed)
        request = TaskRequest(
            task, prompt, drawn, self._front.config.clip.fps, image, videos, seconds or None,
            settings.edit_strength,
        )  # fmt: skip
        check_request(request, self._front.pool, settings)
        job = VideoJob(request, CHAIN_MODEL, self._front.video_size(), "mp4", None)
        return self._jobs.create(job, is_reviewed=review, inputs=files or []).id

    def look(self, identifier: str, shown: int) -> tuple[Any, ...]:
        """(status, picture, video, version): what to show; components that are as they were stay untouched."""
        if not identifier:
            return "", gr.skip(), gr.skip(), shown
        try:
            job = self._jobs.get(identifier)
        except MoraError as error:
            return as_plain(str(error)), gr.skip(), gr.skip(), shown
        if job.status == "completed":
            if shown == -2:
                return self._describe(job), gr.skip(), gr.skip(), shown
            return self._describe(job), gr.update(visible=False), self._video(self._jobs.file(job)), -2
        return self._candidate(job, shown)

    def _candidate(self, job: VideoJob, shown: int) -> tuple[Any, ...]:
        state = job.review()
        if job.session is None or state is None or state.status != "waiting" or state.candidate is None:
            return self._describe(job), gr.skip(), gr.skip(), shown
        candidate = state.candidate
        text = f"**{candidate.stage}** waits for you. Prompt: {as_plain(candidate.prompt)}"
        if state.version == shown:
            return text, gr.skip(), gr.skip(), shown
        if candidate.kind == "text":
            return text, gr.update(visible=False), gr.update(visible=False), state.version
        frames = job.session.frames(candidate)
        if frames.ndim == 3:
            return text, gr.update(value=frames, visible=True), gr.update(visible=False), state.version
        path = job.session.folder / f"{state.version}.mp4"
        path.write_bytes(encode(frames, job.request.fps, "mp4", {}))
        return text, gr.update(visible=False), self._video(path), state.version

    @staticmethod
    def _video(path: Path) -> Any:
        return gr.update(value=str(path), visible=True)

    @staticmethod
    def _describe(job: VideoJob) -> str:
        what = as_plain(f"{job.request.task}, seed {job.request.seed}:")
        review = job.review()
        if review is not None and review.status == "stopped":
            why = as_plain(job.error["message"]) if job.error else ""
            return f"{what} stopped at **{job.stage or 'its beginning'}**; Resume goes on ({why})"
        error = as_plain(f": {job.error['message']}") if job.error else ""
        return f"{what} {job.status} {job.progress} % {job.stage}{error}"

    def decide(self, identifier: str, shown: int, action: Action, words: str) -> None:
        """Pass a decision on. Raises: MoraError, ValidationError: it does not fit; nothing has changed."""
        job = self._jobs.get(identifier)
        if job.session is None:
            raise BadRequest("review", "this job asks nobody; tick `review` when you start one")
        prompt = words if action in ("edit", "adjust") else None
        job.session.decide(Decision(version=shown, action=action, prompt=prompt, reviewer="page"))

    def resume(self, identifier: str) -> None:
        """Go on with a review that was stopped. Raises: MoraError: it was not."""
        self._jobs.resume(identifier)

    def reviews(self) -> list[tuple[str, str]]:
        """(what it is, id) of every review that is not done, the newest first."""
        found = []
        for job in self._jobs.all()[::-1]:
            state = job.review()
            if state is not None and job.status != "completed":
                stage = f" at {job.stage}" if job.stage else ""
                text = f"{job.request.task}: {job.request.prompt[:60]} ({state.status}{stage}, {job.id[-6:]})"
                found.append((text, job.id))
        return found


def mount_page(app: FastAPI, front: Front, jobs: VideoJobs, folder: Path) -> FastAPI:
    """Put the page into the application, under `/page`; `/` leads there."""
    page = Page(front, jobs)

    @app.get("/")
    async def root() -> Response:
        return RedirectResponse(PATH)

    mounted: FastAPI = gr.mount_gradio_app(
        app,
        _blocks(page),
        path=PATH,
        allowed_paths=[str(folder)],
        show_error=True,
        css=_STYLE,
        max_file_size=front.config.serving.max_upload_nbytes,
    )
    return mounted


def _blocks(page: Page) -> gr.Blocks:
    blocks = gr.Blocks(title="Mora", analytics_enabled=False)
    with blocks:
        gr.Markdown("# Mora\nText, pictures and videos to videos, with a look after every stage.")
        identifier, shown = gr.State(""), gr.State(-1)
        with gr.Row():
            with gr.Column():
                task = gr.Dropdown(list(TASKS), value="text_to_video", label="Task")
                prompt = gr.Textbox(label="Prompt", lines=3)
                files = gr.File(label="Picture or videos", type="binary", file_count="multiple", height=140)
                with gr.Row():
                    seconds = gr.Number(label="Seconds (0: one clip)", value=0)
                    seed = gr.Number(label="Seed (-1: a new one)", value=-1, precision=0)
                review = gr.Checkbox(label="Review every stage", value=True)
                start = gr.Button("Start", variant="primary")
            with gr.Column():
                reviews = gr.Dropdown([], label="Reviews that are not done", value=None, interactive=True)
                status = gr.Markdown("Nothing has been started.")
                picture = gr.Image(
                    label="Candidate",
                    visible=False,
                    interactive=False,
                    height=_SHOWN_HEIGHT,
                    elem_id="candidate",
                    buttons=["download", "fullscreen"],
                )
                video = gr.Video(
                    label="Video",
                    visible=False,
                    interactive=False,
                    autoplay=True,
                    loop=True,
                    height=_SHOWN_HEIGHT,
                    buttons=["download"],
                )
                words = gr.Textbox(label="New prompt, or instruction to adjust by")
                with gr.Row():
                    _decision_buttons(page, identifier, shown, words)

        def begin(*values: Any) -> tuple[str, int]:
            return _shown_errors(page.start, *values), -1

        start.click(begin, [task, prompt, files, seconds, seed, review], [identifier, shown])
        reviews.select(lambda chosen: (chosen, -1), reviews, [identifier, shown], api_name="open")
        blocks.load(_job_of_address, None, identifier)  # `?job=ID`: another reviewer looks at the same job
        listed = gr.State([])
        gr.Timer(_EVERY_S).tick(lambda known: _listing(page, known), listed, [reviews, listed], show_progress="hidden")
        looked = [status, picture, video, shown]
        gr.Timer(_EVERY_S).tick(page.look, [identifier, shown], looked, show_progress="hidden")
    return blocks


def _listing(page: Page, known: list[tuple[str, str]]) -> tuple[Any, Any]:
    """The choice of reviews, which stays untouched, open or not, as long as there are no others."""
    found = page.reviews()
    return (gr.skip(), gr.skip()) if found == known else (gr.update(choices=found), found)


def _job_of_address(request: gr.Request) -> str:
    return str(request.query_params.get("job", ""))


def _decision_buttons(page: Page, identifier: gr.State, shown: gr.State, words: gr.Textbox) -> None:
    actions: dict[str, Action] = {
        "Accept": "accept", "Again": "again", "Edit prompt": "edit", "Adjust": "adjust", "Back": "back", "Stop": "stop",
    }  # fmt: skip
    for label, action in actions.items():

        def decide(job: str, version: int, text: str, action: Action = action) -> None:
            _shown_errors(page.decide, job, version, action, text)

        gr.Button(label, size="sm").click(decide, [identifier, shown, words])

    def resume(job: str) -> None:
        _shown_errors(page.resume, job)

    gr.Button("Resume", size="sm").click(resume, [identifier])


def _shown_errors(function: Any, *values: Any) -> Any:
    """What does not fit is shown on the page in one line."""
    try:
        return function(*values)
    except MoraError as error:
        raise gr.Error(str(error), print_exception=False) from None
    except ValidationError as error:
        raise gr.Error(first_fault(error), print_exception=False) from None
