"""One question to a model behind an OpenAI-compatible chat endpoint: settings, deadlines, retries, one-line errors.

Used by the prompt agent of tasks, and by the judges and the writer of prompts of data-free rounds.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mora_runtime.errors import EndpointFailed
from mora_runtime.schema import Settings
from mora_trainer.settings import PositiveInt
from PIL import Image
from pydantic import Field

_MAX_CAUSE_LENGTH = 300


class ChatSettings(Settings):
    """Which endpoint, and how long it is waited for. The key is never in a configuration, only its variable's name."""

    base_url: str | None = None  # of vLLM, Ollama, llama.cpp, ...; None = OpenAI itself
    model: str
    api_key_variable: str = "OPENAI_API_KEY"
    timeout_s: float = Field(default=60.0, gt=0.0)  # of one attempt
    max_retries: int = Field(default=2, ge=0)  # of a request that got no answer
    temperature: float | None = Field(default=None, ge=0.0)  # None leaves the endpoint's own
    max_tokens: PositiveInt | None = None  # of an answer


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
        key = os.environ.get(settings.api_key_variable)
        if not key and settings.base_url is None:
            raise self._failed("it asks for a key")
        return openai.OpenAI(
            base_url=settings.base_url,
            api_key=key or "none",  # servers of one's own ask for none, but the client does
            timeout=settings.timeout_s,
            max_retries=settings.max_retries,
        )

    def __str__(self) -> str:
        return f"{self._whose}: {self._settings.model} at {self._settings.base_url or 'OpenAI'}"

    def _failed(self, cause: str) -> EndpointFailed:
        said = " ".join(cause.split())[:_MAX_CAUSE_LENGTH]
        return EndpointFailed(
            f"{self}: {said}; is it up, has it this model, and is {self._settings.api_key_variable} set where it asks "
            "for a key?"
        )


def picture_part(image: Image.Image) -> dict[str, Any]:
    """A picture as a part of a message."""
    content = io.BytesIO()
    image.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
