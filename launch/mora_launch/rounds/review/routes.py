"""The HTTP interface of the review page: visits, the set that each one sees, and its reviewer's decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from mora_launch.limits import MAX_REVIEW_NUMBER
from mora_launch.rounds.review.recent_statistics import RecentStatistics
from mora_launch.rounds.review.visitor import Visitor
from mora_launch.rounds.review.visits import Visits


def _plain(name: str) -> str:
    if not name.isprintable() or not name.strip():
        raise ValueError("expected a name without control characters")
    return name.strip()


Number = Annotated[int, Field(ge=0, le=MAX_REVIEW_NUMBER)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Beginning(_Body):
    """The reviewer's name, recorded in decisions and statistics."""

    reviewer: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain)]


class SetName(_Body):
    """The set that a reviewer sees, so that a decision about another one is refused."""

    round: Number
    index: Number


class Choice(SetName):
    """A reviewer's decision: the number of a candidate, or None if none is good."""

    chosen: Number | None


def visit_routes(run: Path, visits: Visits) -> APIRouter:
    """Return a router with all endpoints. They are plain functions, which run in threads because they read files."""
    router = APIRouter(prefix="/v1/visits")

    statistics = RecentStatistics(run)

    def shown(identifier: str, visitor: Visitor) -> Response:
        return JSONResponse({**_as_json(identifier, visitor), "statistics": statistics.text()})

    @router.post("")
    def begin(beginning: Beginning) -> Response:
        return look(visits.begin(beginning.reviewer))

    @router.get("/{identifier}")
    def look(identifier: str) -> Response:
        with visits.visitor(identifier) as visitor:
            visitor.look()
            return shown(identifier, visitor)

    @router.delete("/{identifier}")
    def leave(identifier: str) -> Response:
        visits.leave(identifier)
        return JSONResponse({"visitor": identifier, "object": "review.visit.deleted", "deleted": True})

    @router.post("/{identifier}/decision")
    def decide(identifier: str, choice: Choice) -> Response:
        with visits.visitor(identifier) as visitor:
            visitor.decide(choice.round, choice.index, choice.chosen)
            statistics.forget()
            return shown(identifier, visitor)

    @router.post("/{identifier}/skip")
    def skip(identifier: str, name: SetName) -> Response:
        with visits.visitor(identifier) as visitor:
            visitor.skip(name.round, name.index)
            return shown(identifier, visitor)

    @router.post("/{identifier}/undo")
    def undo(identifier: str) -> Response:
        with visits.visitor(identifier) as visitor:
            visitor.undo()
            statistics.forget()
            return shown(identifier, visitor)

    @router.get("/{identifier}/rounds/{number}/sets/{index}/videos/{candidate}")
    def video(identifier: str, number: Number, index: Number, candidate: Number) -> Response:
        with visits.visitor(identifier) as visitor:
            videos = visitor.held(number, index).videos
            if candidate >= len(videos):
                raise HTTPException(404, f"expected a candidate from 0 to {len(videos) - 1}, got {candidate}")
            return FileResponse(videos[candidate], media_type="video/mp4")

    return router


def _as_json(identifier: str, visitor: Visitor) -> dict[str, Any]:
    waiting = visitor.shown
    held = None
    if waiting is not None:
        held = {
            "round": waiting.round, "index": waiting.index, "prompt": waiting.planned.prompt,
            "question": waiting.question, "num_candidates": len(waiting.planned.seeds),
        }  # fmt: skip
    return {"object": "review.visit", "visitor": identifier, "reviewer": visitor.reviewer, "set": held}
