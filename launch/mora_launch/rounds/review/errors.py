"""Errors of the review page, as JSON answers in OpenAI's format."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from mora_runtime.errors import MoraError, RoundError

from mora_launch.rounds.review.visits import NoVisit, TooManyReviewers
from mora_launch.web.framework_errors import install_framework_errors
from mora_launch.web.guard import error_body

_KIND = "invalid_request_error"


def install_errors(app: FastAPI) -> None:
    """Install a handler that answers every error as JSON."""

    @app.exception_handler(MoraError)
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, MoraError)
        kinds: tuple[tuple[type[MoraError], int], ...] = ((NoVisit, 404), (TooManyReviewers, 429), (RoundError, 409))
        status = next((status for kind, status in kinds if isinstance(error, kind)), 500)
        return JSONResponse(error_body(None, str(error), _KIND if status < 500 else "server_error", error.code), status)

    install_framework_errors(app)
