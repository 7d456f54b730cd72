"""The state that all endpoints share (pool, settings, admission), and the handlers that turn errors into answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from mora_runtime.errors import Cancelled, ConfigurationError, MoraError, RoleFailed, TransportError

from mora_launch.config.train_config import TrainConfig
from mora_launch.decoding.pool import DecodePool
from mora_launch.review.decision import ReviewRefused
from mora_launch.serving.http.admission import Admission, TooBusy
from mora_launch.serving.http.held_bytes import HeldBytes
from mora_launch.serving.http.request_record import note_error
from mora_launch.serving.http.requests.request_cost import default_max_cost
from mora_launch.serving.life.drain import Drain
from mora_launch.serving.server_pool import ServerPool
from mora_launch.tasks.errors import BadRequest
from mora_launch.web.framework_errors import install_framework_errors
from mora_launch.web.guard import error_body

CHAIN_MODEL = "mora"  # name of all agents together


@dataclass(frozen=True)
class Front:
    """The shared state of one application.

    Attributes:
        admission: limits requests, except reviews.
        reviews: limits video jobs whose stages a person reviews.
        uploads: limits requests whose files are being decoded.
        decoders: decode these files.
        decoding: limits the memory of decoded frames until a job owns them.
        drain: refuses new work when the server ends.
        tenants: for whom a part of the limits is reserved.
    """

    pool: ServerPool
    config: TrainConfig
    admission: Admission
    reviews: Admission
    uploads: Admission
    decoders: DecodePool
    decoding: HeldBytes
    drain: Drain = field(default_factory=Drain)
    tenants: Collection[str] = ()

    @classmethod
    def over(cls, pool: ServerPool, config: TrainConfig, tenants: Collection[str] = ()) -> Front:
        """Create it with the limits of a configuration.

        Args:
            tenants: for whom a part of the limits is reserved.
        """
        settings = config.serving
        max_cost = settings.max_waiting_cost or default_max_cost(pool, config)
        requests = Admission(settings.max_waiting, max_cost=max_cost, tenants=tenants)
        return cls(
            pool, config, requests, Admission(settings.max_reviews, "reviews", tenants=tenants),
            Admission(settings.max_waiting, "uploads", tenants=tenants), DecodePool(),
            HeldBytes(settings.max_waiting_nbytes, tenants), tenants=tuple(tenants),
        )  # fmt: skip

    def video_size(self) -> tuple[int, int]:
        """Return (height, width) of the video agent, to which every uploaded video is resized."""
        about = self.pool.describe("image_to_video")
        return about["height"], about["width"]

    @property
    def checkpoint(self) -> str | None:
        """The checkpoint that all agents were loaded from, RUN or RUN:STEP, without the folder of the run."""
        named = self.config.serving.checkpoint
        return None if named is None else Path(named).name

    def models(self) -> list[str]:
        """Return the names that a request may give as `model`."""
        return [CHAIN_MODEL, *self._agents_by_name(), *self._adapted()]

    def _adapted(self) -> list[str]:
        return [f"{CHAIN_MODEL}:{name}" for name in self.pool.adapters.names]

    def unknown_model(self, model: str, known: Sequence[str]) -> NotFound:
        """Return the error for a model that is none of the known ones."""
        adapted = f"{CHAIN_MODEL}:{model}"
        hint = f"; the adapters `{model}` are the model {adapted}" if adapted in known else ""
        return NotFound("model", f"expected one of {', '.join(known)}, got {model[:60]}{hint}")

    def check_model(self, model: str | None, capability: str) -> str:
        """Return the model's name, or the default. Raises: NotFound: an unknown name, or one without the capability."""
        if model is None or model == CHAIN_MODEL:
            return CHAIN_MODEL
        wanted = self.pool.describe(capability)["agent"]
        agents = [name for name, agent in self._agents_by_name().items() if agent == wanted]
        allowed = [CHAIN_MODEL, *agents, *self._adapted()]
        if model not in allowed:
            raise self.unknown_model(model, allowed)
        return model

    def _agents_by_name(self) -> dict[str, str]:
        """Return the agent of each name: the agent's own, and its kind's if no other agent is of that kind."""
        agents = sorted({self.pool.describe(capability)["agent"] for capability in self.pool.capabilities()})
        sections = {**self.config.agents, **self.config.serving.agents}
        kinds = {agent: sections[agent].kind for agent in agents if agent in sections}
        counts = Counter([*kinds.values(), *agents])  # a kind with the name of an agent means that agent
        return {agent: agent for agent in agents} | {kind: agent for agent, kind in kinds.items() if counts[kind] == 1}


class NotFound(BadRequest):
    """A named object does not exist."""

    code = "not_found"


class NotReady(BadRequest):
    """A result is asked for before it is made.

    Attributes:
        retry_after_s: when a part of it may be there; None if there will be none before it is whole.
    """

    code = "not_ready"

    def __init__(self, field: str, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(field, text)
        self.retry_after_s = retry_after_s


class WrongContentType(BadRequest):
    """The endpoint does not accept this content type."""

    code = "wrong_content_type"


_STATUSES: tuple[tuple[type[MoraError], int], ...] = (
    (NotFound, 404), (NotReady, 409), (ReviewRefused, 409), (WrongContentType, 415), (ConfigurationError, 400),
    (TooBusy, 429), (Cancelled, 499), (RoleFailed, 503), (TransportError, 503),
)  # fmt: skip


def status_of(kind: type[MoraError]) -> int:
    """Return the HTTP status of a kind of error."""
    return next((status for known, status in _STATUSES if issubclass(kind, known)), 500)


def status_of_code(code: str) -> int:
    """Return the HTTP status of an error of which only the code is known."""
    kinds = [MoraError]
    for kind in kinds:  # grows while it is walked through
        kinds += kind.__subclasses__()
    return max((status_of(kind) for kind in kinds if kind.code == code), default=500)


def error_answer(text: str, status: int, *, field: str | None = None, code: str | None = None) -> JSONResponse:
    """Return an error in OpenAI's format."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse(error_body(field, text, kind, code), status)


def install_errors(app: FastAPI) -> None:
    """Install a handler that answers every error as JSON in OpenAI's format."""

    @app.exception_handler(MoraError)
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, MoraError)
        note_error(error.code)
        field = error.field if isinstance(error, BadRequest) else None
        answered = error_answer(str(error), status_of(type(error)), field=field, code=error.code)
        if isinstance(error, TooBusy | NotReady) and error.retry_after_s is not None:
            answered.headers["retry-after"] = str(error.retry_after_s)
        return answered

    install_framework_errors(app)
