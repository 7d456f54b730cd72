"""One question to a server that speaks OpenAI's chat protocol: deadlines, retries, and errors that say what to do."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from typing import Any

from mora_runtime.errors import JudgeError
from PIL import Image

from mora_launch.rounds.settings import EndpointSettings


class Chat:
    """A connection to one model of one server. The key comes from the environment variable that the settings name."""

    def __init__(self, settings: EndpointSettings) -> None:
        import openai

        self._settings = settings
        self._errors = (openai.OpenAIError, ValueError)  # the second: a body that is no JSON
        self._client = openai.OpenAI(
            base_url=settings.base_url,
            # servers of one's own ask for none, but the client does
            api_key=os.environ.get(settings.api_key_variable) or "none",
            timeout=settings.timeout_s,
            max_retries=settings.max_retries,
        )

    def ask(self, messages: Sequence[dict[str, Any]], *, temperature: float | None = None) -> str:
        """The answer's text.

        Raises:
            JudgeError: no answer in time, a refusal, or an answer without text.
        """
        settings = self._settings
        try:
            reply = self._client.chat.completions.create(
                model=settings.model,
                messages=list(messages),  # type: ignore[arg-type]
                temperature=settings.temperature if temperature is None else temperature,
                max_tokens=settings.max_tokens,
            )
        except self._errors as error:
            raise JudgeError(
                f"{settings.base_url} ({settings.model}): no answer after {settings.max_retries + 1} attempt(s) of "
                f"{settings.timeout_s:g} s: {error}; is it up, and is {settings.api_key_variable} set?"
            ) from None
        try:
            text = reply.choices[0].message.content
        except (AttributeError, IndexError, TypeError):  # the client hands on whatever came with status 200
            text = None
        if not isinstance(text, str) or not text:
            raise JudgeError(f"{settings.base_url} ({settings.model}): answered without text")
        return text


def picture_part(image: Image.Image) -> dict[str, Any]:
    """A picture as a part of a message."""
    content = io.BytesIO()
    image.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
