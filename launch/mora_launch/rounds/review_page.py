"""Review on a web page: four videos side by side, buttons and keys, several reviewers at once (Gradio).

A visitor holds the set that they are shown until they decide, skip, or leave; the lock is the one of `review_queue`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from mora_launch.markdown import as_plain
from mora_launch.rounds.review_queue import ReviewQueue, Waiting
from mora_launch.rounds.review_terminal import statistics
from mora_launch.web.guard import Guard
from mora_launch.web.listening import names_of

_MAX_BODY_NBYTES = 1 << 20  # a press of a button
_GRACE_S = 2
_NARROW = 60  # pixels: each button under its video, nine of them too

_KEYS = """
<script>
document.addEventListener("keydown", event => {
  if (["INPUT", "TEXTAREA"].includes(event.target.tagName)) return;
  const button = document.querySelector(`#review-${{"u": "undo", "s": "skip"}[event.key] || event.key}`);
  if (button) button.click();
});
</script>
"""


class Visitor:
    """One open page."""

    def __init__(self, run: Path, reviewer: str) -> None:
        self._queue = ReviewQueue(run, reviewer)
        self._hold = ExitStack()
        self.shown: Waiting | None = None

    def advance(self, after: Waiting | None = None) -> Waiting | None:
        """Let go of the set that is shown and hold the next one."""
        self._hold.close()
        self.shown = self._hold.enter_context(self._queue.next(after))
        return self.shown

    def decide(self, chosen: int | None) -> None:
        """Decide the set that is shown, and go on."""
        if self.shown is not None:
            self._queue.decide(self.shown, chosen)
        self.advance()

    def undo(self) -> None:
        """Take the latest decision back; the set is next again."""
        self._hold.close()
        self._queue.undo()
        self.advance()

    def skip(self) -> None:
        """Show another one first."""
        self.advance(self.shown)

    def leave(self) -> None:
        """Let go of everything."""
        self._hold.close()
        self.shown = None


class ReviewPage:
    """The page of one run.

    Args:
        num_candidates: of each set.
    """

    def __init__(self, run: Path, num_candidates: int) -> None:
        self._run = run
        self._num_candidates = num_candidates
        self._visitors: dict[str, Visitor] = {}  # by Gradio's name of an open page

    def build(self) -> Any:
        """The Gradio application."""
        with gr.Blocks(title="Mora: review", analytics_enabled=False) as page:
            with gr.Row(equal_height=True):
                name = gr.Textbox(value="reviewer", show_label=False, info="your name", scale=4)
                begin = gr.Button("begin", variant="primary", scale=1)
            head = gr.Markdown()
            with gr.Row():
                videos = [
                    gr.Video(label=f"{number + 1}", autoplay=True, loop=True, interactive=False, buttons=["download"])
                    for number in range(self._num_candidates)
                ]
            with gr.Row():
                takes = [
                    gr.Button(f"take {n + 1}", elem_id=f"review-{n + 1}", min_width=_NARROW)
                    for n in range(self._num_candidates)
                ]
            with gr.Row():
                none = gr.Button("none is good (0)", elem_id="review-0")
                skip, undo = gr.Button("skip (s)", elem_id="review-skip"), gr.Button("undo (u)", elem_id="review-undo")
            state = gr.Markdown()
            shown = [head, *videos, state]

            def on(button: Any, act: Callable[[Visitor], None], called: str) -> None:
                def pressed(request: gr.Request) -> list[Any]:
                    return self._do(str(request.session_hash), act)

                button.click(pressed, [], shown, api_name=called)

            def began(name: str, request: gr.Request) -> list[Any]:
                return self._begin(str(request.session_hash), name)

            def left(request: gr.Request) -> None:
                self._leave(str(request.session_hash))

            begin.click(began, [name], shown, api_name="begin")
            for number, take in enumerate(takes):
                on(take, _deciding(number), f"take_{number + 1}")
            on(none, _deciding(None), "none")
            on(skip, Visitor.skip, "skip")
            on(undo, Visitor.undo, "undo")
            page.unload(left)
        return page

    def application(self, hosts: frozenset[str] | None) -> FastAPI:
        """The page behind the guard; of the run's files only those of the rounds can be fetched.

        Args:
            hosts: see `Guard`.
        """
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        app.add_middleware(Guard, token=None, hosts=hosts, max_body_nbytes=_MAX_BODY_NBYTES)
        mounted: FastAPI = gr.mount_gradio_app(
            app, self.build(), path="/", allowed_paths=[str(self._run / "rounds")], head=_KEYS
        )
        return mounted

    def serve(self, host: str, address: socket.socket) -> None:
        """Serve until interrupted."""
        settings = uvicorn.Config(
            self.application(names_of(host)), log_level="warning", timeout_graceful_shutdown=_GRACE_S, access_log=False
        )
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn ends well and raises it again
            uvicorn.Server(settings).run(sockets=[address])

    def _begin(self, key: str, name: str) -> list[Any]:
        self._leave(key)
        visitor = self._visitors[key] = Visitor(self._run, name.strip() or "reviewer")
        visitor.advance()
        return self._shown(key)

    def _leave(self, key: str) -> None:
        if key in self._visitors:
            self._visitors.pop(key).leave()

    def _do(self, key: str, act: Callable[[Visitor], None]) -> list[Any]:
        if key in self._visitors:
            act(self._visitors[key])
        return self._shown(key)

    def _shown(self, key: str) -> list[Any]:
        visitor = self._visitors.get(key)
        waiting = None if visitor is None else visitor.shown
        if waiting is None:
            empty = [None] * self._num_candidates
            return ["nothing waits for review that nobody else is looking at", *empty, statistics(self._run)]
        head = f"**{as_plain(waiting.planned.prompt)}**\n\n{waiting.question}"
        return [head, *map(str, waiting.videos), statistics(self._run)]


def _deciding(chosen: int | None) -> Callable[[Visitor], None]:
    return lambda visitor: visitor.decide(chosen)
