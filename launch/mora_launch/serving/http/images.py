"""`/v1/images/generations` and `/v1/images/edits`, compatible with OpenAI's."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from mora_data.reading.file_kind import PICTURES, kind_of
from mora_data.reading.fitting import Clip
from mora_runtime.errors import MoraError

from mora_launch.chat.prompt_agent import prompt_agent
from mora_launch.limits import MAX_NUM_IMAGES, MAX_SEED
from mora_launch.serving.cost import call_cost
from mora_launch.serving.http.front import Front, NotFound
from mora_launch.serving.http.reading import get
from mora_launch.serving.http.request_record import note_error, note_submitted
from mora_launch.serving.http.requests.bodies import ImageEdit, ImageGeneration
from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.serving.http.requests.prompt_turns import PromptTurns, enhances
from mora_launch.serving.http.requests.request_terms import terms_of
from mora_launch.serving.http.requests.sizes import asked_size
from mora_launch.serving.http.requests.uploads import decoded, sent_files
from mora_launch.serving.http.results.picture_answer import FILES, PictureAnswer
from mora_launch.serving.http.results.picture_files import PictureFiles
from mora_launch.serving.http.results.stored_file import StoredFile
from mora_launch.serving.http.waiting import on_loop, while_connected
from mora_launch.serving.terms import Terms
from mora_launch.serving.work_queue import Work
from mora_launch.tasks.catalog import editor, takes_strength
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.request import (
    check_editor_strength,
    check_negative_prompt,
    check_prompt,
    check_sampling,
    check_seed,
    check_size,
    sampling,
)
from mora_launch.web.guard import error_body

PromptOf = Callable[[], Awaitable[str]]  # the prompt of a request, rewritten if the request asks for it


def image_routes(front: Front, files: PictureFiles) -> APIRouter:
    """Return a router with both endpoints, and with the pictures that they leave as files."""
    router = APIRouter()
    turns = PromptTurns(prompt_agent(front.config.serving.prompts))

    async def prompt_of(request: Request, fields: RequestFields, terms: Terms) -> str:
        prompt = check_prompt(fields.text("prompt"), front.config.serving, "picture")
        is_enhanced = enhances(fields, front.config.serving)
        return await turns.enhance(request, prompt, terms.tenant) if is_enhanced else prompt

    @router.post("/v1/images/generations", openapi_extra=ImageGeneration.documented())
    async def generations(request: Request) -> Response:
        fields = await RequestFields.read(request, ImageGeneration)
        terms = terms_of(request, fields, front, ("text_to_image",))

        async def submit(place: ExitStack, on_step: Any) -> list[Work]:
            prompt = partial(prompt_of, request, fields, terms)
            return await _submit(front, fields, terms, prompt, place, on_step)

        return await _answer(request, fields, terms, submit, files, "image_generation")

    @router.post("/v1/images/edits", openapi_extra=ImageEdit.documented())
    async def edits(request: Request) -> Response:
        fields = await RequestFields.read(request, ImageEdit)
        if "mask" in fields.files:
            raise BadRequest("mask", "is not supported; the prompt changes the whole picture")
        terms = terms_of(request, fields, front, (editor(front.pool.capabilities()),))

        async def submit(place: ExitStack, on_step: Any) -> list[Work]:
            prompt = partial(prompt_of, request, fields, terms)
            return await _submit_edit(request, front, fields, terms, prompt, place, on_step)

        return await _answer(request, fields, terms, submit, files, "image_edit")

    @get(router, f"{FILES}/{{name}}")
    async def stored(name: str) -> Response:
        found = files.find(name)
        if found is None or not found[0].is_file():
            raise NotFound("name", f"no picture `{name[:60]}`; it is unknown or has expired")
        return StoredFile(found[0], media_type=found[1])

    return router


async def _submit(
    front: Front, fields: RequestFields, terms: Terms, prompt_of: PromptOf, place: ExitStack, on_step: Any
) -> list[Work]:
    front.check_model(fields.text("model"), "text_to_image")
    about = front.pool.describe("text_to_image")
    height, width = check_size(asked_size(fields), about, front.config.serving, is_drawn=True)
    seeds, shared = _common(front, fields, about)
    shared |= {"height": height, "width": width}
    _admit(front, place, terms, len(seeds) * call_cost("text_to_image", about, shared))
    prompt = await prompt_of()
    samples = [{"prompts": prompt, "seeds": seed} for seed in seeds]
    return [front.pool.submit("text_to_image", sample, shared, on_step, terms=terms) for sample in samples]


async def _submit_edit(
    request: Request, front: Front, fields: RequestFields, terms: Terms, prompt_of: PromptOf, place: ExitStack,
    on_step: Any,
) -> list[Work]:  # fmt: skip
    capability = editor(front.pool.capabilities())
    front.check_model(fields.text("model"), capability)
    about = front.pool.describe(capability)
    height, width = check_size(asked_size(fields), about, front.config.serving, is_drawn=True)
    seeds, shared = _common(front, fields, about)
    strength = fields.number("strength")
    check_editor_strength(strength, front.pool)
    pictures = await sent_files(fields, "image")
    if len(pictures) != 1:
        raise BadRequest("image", f"expected one picture as a file, got {len(pictures)}")
    kind = kind_of(pictures[0])
    if kind.media != "picture":
        raise BadRequest("image", f"is {kind}; expected a {PICTURES}")
    own = {**shared, "height": height, "width": width}
    _admit(front, place, terms, len(seeds) * call_cost(capability, about, own))
    image, _ = await decoded(request, front, pictures, "image", (height, width))
    if takes_strength(front.pool.capabilities()):
        shared["strength"] = strength or front.config.serving.edit_strength
    prompt = await prompt_of()
    samples = [{"prompts": prompt, "seeds": seed, "images": image} for seed in seeds]
    return [front.pool.submit(capability, sample, shared, on_step, terms=terms) for sample in samples]


def _admit(front: Front, place: ExitStack, terms: Terms, cost: float) -> None:
    """Count a request until `place` is closed. Raises: BadRequest: it can never fit. TooBusy."""
    front.admission.check_fits(cost, "num_inference_steps")
    place.enter_context(front.admission.place(terms.tenant, cost))


def _common(front: Front, fields: RequestFields, about: dict[str, Any]) -> tuple[list[int], dict[str, Any]]:
    """Return the seeds, one for each picture, and the arguments that all of them share. Raises: BadRequest."""
    settings = front.config.serving
    check_prompt(fields.text("prompt"), settings, "picture")  # before files are decoded or a language model is asked
    asked = fields.integer("n")
    count = 1 if asked is None else asked
    if not 1 <= count <= MAX_NUM_IMAGES:
        raise BadRequest("n", f"expected 1 to {MAX_NUM_IMAGES}, got {count}")
    given = fields.integer("seed")
    seed = random.SystemRandom().randrange(MAX_SEED) if given is None else check_seed(given)
    steps, guidance = fields.integer("num_inference_steps"), fields.number("guidance_scale")
    check_sampling(steps, guidance, about)
    negative_prompt = fields.text("negative_prompt")
    check_negative_prompt(negative_prompt, guidance, about, settings)
    seeds = [(seed + number) % (MAX_SEED + 1) for number in range(count)]
    return seeds, sampling(steps, guidance, negative_prompt)


async def _answer(
    request: Request, fields: RequestFields, terms: Terms, submit: Any, files: PictureFiles, kind: str
) -> Response:
    """Return one JSON answer, or a stream of events; the request leaves the admission when it ends."""
    with ExitStack() as place:
        wanted = PictureAnswer.of(request, fields, terms, files)
        is_enhanced = fields.flag("enhance", False)
        if fields.flag("stream", False):
            steps: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
            loop = asyncio.get_running_loop()
            works = await submit(place, lambda step, num: loop.call_soon_threadsafe(steps.put_nowait, (step, num)))
            note_submitted()
            return StreamingResponse(
                _events(works, steps, place.pop_all(), wanted, is_enhanced, kind), media_type="text/event-stream"
            )
        works = await submit(place, None)
        note_submitted()
        try:
            pictures = await while_connected(request, [work.future for work in works])
        finally:
            for work in works:
                if not work.future.done():
                    work.cancel()
        data = [await _datum(picture, work, wanted, is_enhanced) for picture, work in zip(pictures, works, strict=True)]
        about = {"output_format": wanted.shape.kind, **wanted.adapters()}
        return JSONResponse({"created": int(time.time()), "data": data, **about})


async def _datum(picture: Clip, work: Work, wanted: PictureAnswer, is_enhanced: bool) -> dict[str, Any]:
    revised = {"revised_prompt": work.sample["prompts"]} if is_enhanced else {}
    return {**await wanted.datum(picture), "seed": work.sample["seeds"], **revised}


async def _events(
    works: list[Work], steps: asyncio.Queue[tuple[int, int]], place: ExitStack, wanted: PictureAnswer,
    is_enhanced: bool, kind: str,
) -> AsyncIterator[bytes]:  # fmt: skip
    """Yield server-sent events: the progress while it changes, then one per picture."""
    try:
        with place:
            waiting = {on_loop(work.future) for work in works}
            while waiting:
                _, waiting = await asyncio.wait(waiting, timeout=0.05)
                while not steps.empty():
                    step, num_steps = steps.get_nowait()
                    yield _event(f"{kind}.progress", {"step": step, "num_steps": num_steps})
            for work in works:
                datum = await _datum(work.future.result(), work, wanted, is_enhanced)
                about = {"created_at": int(time.time()), **wanted.adapters()}
                yield _event(f"{kind}.completed", {**datum, **about})
    except MoraError as error:
        note_error(error.code)
        yield _event("error", error_body(None, str(error), "server_error", error.code))
    finally:
        for work in works:
            if not work.future.done():
                work.cancel()


def _event(kind: str, content: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode()
