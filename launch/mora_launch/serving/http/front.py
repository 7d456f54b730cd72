"""What the endpoints share: the pool, the settings, who is admitted, and turning errors into answers."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from mora_runtime.errors import Cancelled, ConfigurationError, MoraError, RoleFailed, TransportError

from mora_launch.config.train_config import TrainConfig
from mora_launch.decoding.pool import DecodePool
from mora_launch.review.decision import ReviewRefused
from mora_launch.serving.http.admission import Admission, TooBusy
from mora_launch.serving.http.held_bytes import HeldBytes
from mora_launch.serving.server_pool import ServerPool
from mora_launch.tasks.errors import BadRequest
from mora_launch.web.framework_errors import install_framework_errors
from mora_launch.web.guard import error_body

CHAIN_MODEL = "mora"  # all agents together


@dataclass(frozen=True)
class Front:
    """One for each application.

    Attributes:
        admission: of requests; those that wait for a person are not among them.
        reviews: of video jobs with somebody who looks after each stage.
        uploads: of requests whose files are being decoded.
        decoders: of those files.
        decoding: what the frames of those files may take, until their jobs hold them.
    """

    pool: ServerPool
    config: TrainConfig
    admission: Admission
    reviews: Admission
    uploads: Admission
    decoders: DecodePool
    decoding: HeldBytes

    @classmethod
    def over(cls, pool: ServerPool, config: TrainConfig) -> Front:
        """With the bounds of a configuration."""
        settings = config.serving
        return cls(
            pool, config, Admission(settings.max_waiting), Admission(settings.max_reviews, "reviews"),
            Admission(settings.max_waiting, "uploads"), DecodePool(), HeldBytes(settings.max_waiting_nbytes),
        )  # fmt: skip

    def video_size(self) -> tuple[int, int]:
        """(height, width) that the video agent makes, and that every video is brought to first."""
        about = self.pool.describe("image_to_video")
        return about["height"], about["width"]

    def models(self) -> list[str]:
        """Names that a request may give as `model`."""
        agents = {self.pool.describe(capability)["agent"] for capability in self.pool.capabilities()}
        return [CHAIN_MODEL, *sorted(agents)]

    def check_model(self, model: str | None, capability: str) -> str:
        """The model's name. Raises: NotFound: an unknown one."""
        allowed = [CHAIN_MODEL, self.pool.describe(capability)["agent"]]
        if model is not None and model not in allowed:
            raise NotFound("model", f"expected one of {', '.join(allowed)}, got {model[:60]}")
        return model or CHAIN_MODEL


class NotFound(BadRequest):
    """Something that is asked for by name is not there."""

    code = "not_found"


class WrongContentType(BadRequest):
    """The body is of a kind that is not read here."""

    code = "wrong_content_type"


def status_of(error: MoraError) -> int:
    """HTTP status of an error."""
    kinds: tuple[tuple[type[MoraError], int], ...] = (
        (NotFound, 404), (ReviewRefused, 409), (WrongContentType, 415), (ConfigurationError, 400), (TooBusy, 429),
        (Cancelled, 499), (RoleFailed, 503), (TransportError, 503),
    )  # fmt: skip
    return next((status for kind, status in kinds if isinstance(error, kind)), 500)


def install_errors(app: FastAPI) -> None:
    """Every error becomes one JSON answer of OpenAI's shape; its text names field and limit."""

    @app.exception_handler(MoraError)
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, MoraError)
        status = status_of(error)
        headers = {"retry-after": str(error.retry_after_s)} if isinstance(error, TooBusy) else {}
        kind = "invalid_request_error" if status < 500 else "server_error"
        field = error.field if isinstance(error, BadRequest) else None
        return JSONResponse(error_body(field, str(error), kind, error.code), status, headers)

    install_framework_errors(app)
