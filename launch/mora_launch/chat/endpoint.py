"""One question to a model behind an OpenAI-compatible chat endpoint: settings, deadlines, retries, one-line errors.

Used by the prompt agent of tasks, and by the judges and the prompt writer of data-free rounds.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from mora_runtime.errors import EndpointFailed
from mora_runtime.files.shown_text import shown_line
from mora_runtime.schema import PositiveInt, Settings
from PIL import Image
from pydantic import Field, field_validator

from mora_launch.limits import MAX_ADDRESS_LENGTH, MAX_CAUSE_LENGTH

_OPENAI = "https://api.openai.com/v1"
_NO_KEY = "none"  # the client requires a key even for servers that need none
_KEY_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*_API_KEY")
_HEADERS = {
    "accept", "accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding",
    "user-agent",
}  # fmt: skip


class ChatSettings(Settings):
    """An endpoint and how long to wait for it. A configuration never contains the key, only its variable's name."""

    base_url: str | None = None  # of vLLM, Ollama, llama.cpp, ...; None = OpenAI itself
    model: str  # the endpoint's name of the model
    api_key_variable: str | None = None  # None = OPENAI_API_KEY for OpenAI itself, no key for any other endpoint
    timeout_s: float = Field(default=60.0, gt=0.0)  # of one attempt
    max_retries: int = Field(default=2, ge=0)  # of a request that got no answer
    temperature: float | None = Field(default=None, ge=0.0)  # None = the endpoint's default
    max_tokens: PositiveInt | None = None  # of an answer

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and (fault := _fault_of_address(url)):
            raise ValueError(f"expected http://HOST[:PORT]/PATH or https://..., {fault}")
        return url

    @field_validator("api_key_variable")
    @classmethod
    def _is_a_key(cls, name: str | None) -> str | None:
        # the author of a configuration also chooses the endpoint, and must not have other variables sent to it
        if name is not None and _KEY_VARIABLE.fullmatch(name) is None:
            raise ValueError(
                "expected a name in capital letters that ends in _API_KEY, for example LAB_API_KEY; no other variable "
                "may be sent to an endpoint"
            )
        return name

    def key_variable(self) -> str | None:
        """Return the name of the environment variable with the key; None if no key is sent."""
        return self.api_key_variable or ("OPENAI_API_KEY" if self.base_url is None else None)


def _fault_of_address(url: str) -> str | None:
    """Return why a text is not the address of an endpoint, to follow the expected form; None if it is."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url or len(url) > MAX_ADDRESS_LENGTH:
        return "without spaces, backslashes and characters beyond ASCII"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises if it is not a number
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "got another kind of address"
    if "@" in parts.netloc:
        return "without user and password in it; the key comes from api_key_variable"
    return "without a fragment" if parts.fragment else None


class Chat:
    """A client of one chat model.

    Args:
        whose: the caller's name with the key of its settings, for error messages.
    """

    def __init__(self, settings: ChatSettings, whose: str) -> None:
        self._settings = settings
        self._whose = whose

    def ask(self, messages: Sequence[Mapping[str, Any]], *, temperature: float | None = None) -> str | None:
        """Return the text of the answer; None if it has none.

        Args:
            temperature: replaces that of the settings.

        Raises:
            EndpointFailed: no answer in time, a refusal, or an answer that is not a chat completion.
        """
        with self._one_line_errors(), self._client() as client:
            return _text(client.chat.completions.create(**self._question(messages, temperature)))

    async def ask_async(self, messages: Sequence[Mapping[str, Any]], *, temperature: float | None = None) -> str | None:
        """Do the same as `ask` on an event loop. If the task is cancelled, the connection is closed at once."""
        # in a thread: importing the client takes a second, and preparing TLS some milliseconds
        made = await asyncio.to_thread(self._client, is_async=True)
        with self._one_line_errors():
            async with made as client:
                return _text(await client.chat.completions.create(**self._question(messages, temperature)))

    def _question(self, messages: Sequence[Mapping[str, Any]], temperature: float | None) -> dict[str, Any]:
        settings = self._settings
        chosen = settings.temperature if temperature is None else temperature
        limits = {"temperature": chosen, "max_tokens": settings.max_tokens}
        given = {name: value for name, value in limits.items() if value is not None}
        return {"model": settings.model, "messages": messages, **given}

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turn the errors of the client inside the block into `EndpointFailed`."""
        import openai

        settings = self._settings
        try:
            yield
        except openai.OpenAIError as error:
            attempts = f"{settings.max_retries + 1} attempt(s) of {settings.timeout_s:g} s"
            raise self._failed(f"no answer after {attempts}: {error}") from None
        except (AttributeError, IndexError, TypeError, ValueError):  # the client accepts any JSON and any text
            raise self._failed("its answer is not a chat completion") from None

    def _client(self, *, is_async: bool = False) -> Any:
        """Return a client, whose methods are coroutines if `is_async`. Raises: EndpointFailed: it needs a key."""
        import openai

        settings = self._settings
        variable = settings.key_variable()
        key = os.environ.get(variable) if variable is not None else None
        if not key and settings.base_url is None:
            raise self._failed("it needs a key")
        # Redirects are not followed: an endpoint must not pass the question on to another one.
        hook = _plain_headers(key, is_async=is_async)
        hooks = {} if settings.base_url is None else {"request": [hook]}
        make_http: Any = openai.DefaultAsyncHttpxClient if is_async else openai.DefaultHttpxClient
        make: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
        return make(
            base_url=settings.base_url or _OPENAI,  # OPENAI_BASE_URL is ignored
            api_key=key or _NO_KEY,
            timeout=settings.timeout_s,
            max_retries=settings.max_retries,
            http_client=make_http(follow_redirects=False, event_hooks=hooks),
        )

    def __str__(self) -> str:
        return f"{self._whose}: {self._settings.model} at {self._settings.base_url or 'OpenAI'}"

    def _failed(self, cause: str) -> EndpointFailed:
        variable = self._settings.key_variable()
        key = "api_key_variable" if variable is None else variable
        return EndpointFailed(
            f"{self}: {shown_line(cause, MAX_CAUSE_LENGTH)}; check that it is running, has this model, and that "
            f"{key} is set if it needs a key"
        )


def _text(answer: Any) -> str | None:
    text = answer.choices[0].message.content
    return text if isinstance(text, str) and text else None


def _plain_headers(key: str | None, *, is_async: bool) -> Callable[[Any], Any]:
    """Return a hook that removes all headers from a request that the protocol does not need.

    The client adds the values of OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_CUSTOM_HEADERS and others. They are meant for
    OpenAI, and other endpoints must not see them.
    """

    def clean(request: Any) -> None:
        for name in [name for name in request.headers if name.lower() not in _HEADERS]:
            del request.headers[name]
        request.headers["Authorization"] = f"Bearer {key or _NO_KEY}"

    async def clean_async(request: Any) -> None:
        clean(request)

    return clean_async if is_async else clean


def picture_part(image: Image.Image) -> dict[str, Any]:
    """Return a picture as a part of a message."""
    content = io.BytesIO()
    image.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
