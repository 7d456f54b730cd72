"""One question to a model behind an OpenAI-compatible chat endpoint: settings, deadlines, retries, one-line errors.

Used by the prompt agent of tasks, and by the judges and the writer of prompts of data-free rounds.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from mora_runtime.errors import EndpointFailed
from mora_runtime.files.shown_text import shown_line
from mora_runtime.schema import PositiveInt, Settings
from PIL import Image
from pydantic import Field, field_validator

from mora_launch.limits import MAX_ADDRESS_LENGTH, MAX_CAUSE_LENGTH

_OPENAI = "https://api.openai.com/v1"
_NO_KEY = "none"  # servers of one's own ask for none, but the client does
_KEY_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*_API_KEY")
_HEADERS = {
    "accept", "accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding",
    "user-agent",
}  # fmt: skip


class ChatSettings(Settings):
    """Which endpoint, and how long it is waited for. The key is never in a configuration, only its variable's name."""

    base_url: str | None = None  # of vLLM, Ollama, llama.cpp, ...; None = OpenAI itself
    model: str
    api_key_variable: str | None = None  # None = OPENAI_API_KEY for OpenAI itself, no key for any other endpoint
    timeout_s: float = Field(default=60.0, gt=0.0)  # of one attempt
    max_retries: int = Field(default=2, ge=0)  # of a request that got no answer
    temperature: float | None = Field(default=None, ge=0.0)  # None leaves the endpoint's own
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
        # whoever writes a configuration chooses the endpoint too: any other variable would be sent to his own
        if name is not None and _KEY_VARIABLE.fullmatch(name) is None:
            raise ValueError(
                "expected a name that ends in _API_KEY, in capital letters, for example LAB_API_KEY; no other variable "
                "is sent anywhere"
            )
        return name

    def key_variable(self) -> str | None:
        """The environment variable that holds the key; None where none is sent."""
        return self.api_key_variable or ("OPENAI_API_KEY" if self.base_url is None else None)


def _fault_of_address(url: str) -> str | None:
    """Why a text is no address of an endpoint."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url or len(url) > MAX_ADDRESS_LENGTH:
        return "without spaces, backslashes and characters beyond ASCII"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "got another kind of address"
    if "@" in parts.netloc:
        return "without user and password in it; the key comes from api_key_variable"
    return "without a fragment" if parts.fragment else None


class Chat:
    """A model to ask.

    Args:
        whose: who asks it, for errors: what it is, and where its settings stand.
    """

    def __init__(self, settings: ChatSettings, whose: str) -> None:
        self._settings = settings
        self._whose = whose

    def ask(self, messages: Sequence[Mapping[str, Any]], *, temperature: float | None = None) -> str | None:
        """The answer's text; None where it has none.

        Args:
            temperature: instead of the settings' own.

        Raises:
            EndpointFailed: no answer in time, a refusal, or something that is no chat completion.
        """
        import openai

        settings = self._settings
        chosen = settings.temperature if temperature is None else temperature
        limits = {"temperature": chosen, "max_tokens": settings.max_tokens}
        try:
            with self._client() as client:
                answer = client.chat.completions.create(
                    model=settings.model,
                    messages=messages,
                    **{name: value for name, value in limits.items() if value is not None},
                )
            text = answer.choices[0].message.content
        except openai.OpenAIError as error:
            attempts = f"{settings.max_retries + 1} attempt(s) of {settings.timeout_s:g} s"
            raise self._failed(f"no answer after {attempts}: {error}") from None
        except (AttributeError, IndexError, TypeError, ValueError):  # the client takes any JSON and any text for one
            raise self._failed("its answer is no chat completion") from None
        return text if isinstance(text, str) and text else None

    def _client(self) -> Any:
        import openai

        settings = self._settings
        variable = settings.key_variable()
        key = os.environ.get(variable) if variable is not None else None
        if not key and settings.base_url is None:
            raise self._failed("it asks for a key")
        # Redirects are not followed: an endpoint must not choose who else hears the question.
        hooks = {} if settings.base_url is None else {"request": [_plain_headers(key)]}
        return openai.OpenAI(
            base_url=settings.base_url or _OPENAI,  # never that of OPENAI_BASE_URL
            api_key=key or _NO_KEY,
            timeout=settings.timeout_s,
            max_retries=settings.max_retries,
            http_client=openai.DefaultHttpxClient(follow_redirects=False, event_hooks=hooks),
        )

    def __str__(self) -> str:
        return f"{self._whose}: {self._settings.model} at {self._settings.base_url or 'OpenAI'}"

    def _failed(self, cause: str) -> EndpointFailed:
        variable = self._settings.key_variable()
        key = "api_key_variable named" if variable is None else f"{variable} set"
        return EndpointFailed(
            f"{self}: {shown_line(cause, MAX_CAUSE_LENGTH)}; is it up, has it this model, and is {key} where it asks "
            "for a key?"
        )


def _plain_headers(key: str | None) -> Callable[[Any], None]:
    """Leaves a request the headers that the protocol needs.

    The client adds what it finds in OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_CUSTOM_HEADERS and the like: meant for
    OpenAI, and nothing for another endpoint to know.
    """

    def clean(request: Any) -> None:
        for name in [name for name in request.headers if name.lower() not in _HEADERS]:
            del request.headers[name]
        request.headers["Authorization"] = f"Bearer {key or _NO_KEY}"

    return clean


def picture_part(image: Image.Image) -> dict[str, Any]:
    """A picture as a part of a message."""
    content = io.BytesIO()
    image.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
