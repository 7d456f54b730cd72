"""What goes wrong on the review page, as JSON answers of OpenAI's shape."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from mora_runtime.errors import MoraError, RoundError
from starlette.exceptions import HTTPException

from mora_launch.rounds.review_visits import NoVisit, TooManyReviewers
from mora_launch.web.guard import error_body

_KIND = "invalid_request_error"


def install_errors(app: FastAPI) -> None:
    """Every error becomes one JSON answer."""

    @app.exception_handler(MoraError)
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, MoraError)
        kinds: tuple[tuple[type[MoraError], int], ...] = ((NoVisit, 404), (TooManyReviewers, 429), (RoundError, 409))
        status = next((status for kind, status in kinds if isinstance(error, kind)), 500)
        return JSONResponse(error_body(None, str(error), _KIND if status < 500 else "server_error", error.code), status)

    @app.exception_handler(HTTPException)
    async def answer_unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = f"{request.method} {request.url.path[:100]}: {error.detail}"
        return JSONResponse(error_body(None, text, _KIND), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        fault = error.errors()[0]
        name = str(fault["loc"][-1])[:60]
        said = str(fault["msg"]).removeprefix("Value error, ")
        text = f"{name}: {said}, got {str(fault['input'])[:40]}"
        return JSONResponse(error_body(name, text, _KIND, "bad_request"), 400)
