"""Errors of the web framework itself (unknown paths, fields of a wrong type), in the format of all other errors."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from mora_launch.web.guard import error_body

_KIND = "invalid_request_error"


def install_framework_errors(app: FastAPI) -> None:
    """Install handlers that answer in the format of `error_body` and name the path, or the field and its value."""

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
