"""The prompt agent: makes a short wish into the long description that image models were trained on.

`template` is a documented rewriting by rules and no language model; `openai` asks one behind any OpenAI-compatible
endpoint (paper, section A.3).
"""

from __future__ import annotations

import os
from typing import Protocol

from mora_runtime.errors import EnvironmentFailed

from mora_launch.serving.settings import PromptAgentSettings

_INSTRUCTION = (
    "You rewrite a short wish for a video into one description for a text-to-image model: subject, action, setting, "
    "light, style, camera. Keep everything the wish says, add nothing against it. Answer with the description alone, "
    "at most 70 words."
)
_DETAIL = "The scene is coherent and clearly lit, with rich detail, natural colours and a steady camera."
_QUOTES = (('"', '"'), ("\u201c", "\u201d"))  # around the whole description, as some models put them
_MAX_ANSWER_LENGTH = 2000  # characters; 70 words are asked for
_MAX_CAUSE_LENGTH = 300


class PromptAgent(Protocol):
    """Rewrites prompts."""

    name: str

    def enhance(self, prompt: str) -> str:
        """The prompt to make pictures from."""


class TemplatePromptAgent:
    """Offline rules: one sentence from the wish, one about detail and light, unless the wish is long already."""

    name = "template"

    def enhance(self, prompt: str) -> str:
        """Deterministic; a prompt of 40 words or more stays as it is."""
        wish = " ".join(prompt.split())
        if len(wish.split()) >= 40 or wish.endswith(_DETAIL):
            return wish
        return f"{wish[0].upper()}{wish[1:].rstrip('.')}. {_DETAIL}"


class OpenAIPromptAgent:
    """A language model; its key stands in OPENAI_API_KEY, which servers of one's own need not have."""

    def __init__(self, settings: PromptAgentSettings) -> None:
        self._settings = settings
        self.name = settings.model

    def enhance(self, prompt: str) -> str:
        """The model's description; the prompt as it is where the answer is none: empty, or longer than any could be.

        Raises:
            EnvironmentFailed: the endpoint gave no answer in time, or one that is not of the chat protocol.
        """
        description = " ".join(self._answer(prompt).split())
        for opening, closing in _QUOTES:
            if len(description) > 2 and description.startswith(opening) and description.endswith(closing):
                description = description[1:-1].strip()
        return description if 0 < len(description) <= _MAX_ANSWER_LENGTH else prompt

    def _answer(self, prompt: str) -> str:
        import openai

        settings = self._settings
        own = settings.base_url is not None
        try:
            client = openai.OpenAI(
                base_url=settings.base_url,
                api_key=os.environ.get("OPENAI_API_KEY") or ("none" if own else None),
                timeout=settings.timeout_s,
                max_retries=settings.max_retries,
            )
            answer = client.chat.completions.create(
                model=settings.model,
                messages=[{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": prompt}],
            )
            return str(answer.choices[0].message.content or "")
        except openai.OpenAIError as error:
            raise self._failed(str(error)) from None
        except (AttributeError, IndexError, TypeError, ValueError):  # the package takes any JSON and any text for one
            raise self._failed("its answer is no chat completion") from None

    def _failed(self, cause: str) -> EnvironmentFailed:
        where = self._settings.base_url or "OpenAI"
        said = " ".join(cause.split())[:_MAX_CAUSE_LENGTH]
        return EnvironmentFailed(
            f"prompt agent {self.name} at {where}: {said}; look after serving.prompts.base_url, or set "
            "serving.prompts.kind: template"
        )


def prompt_agent(settings: PromptAgentSettings) -> PromptAgent:
    """The one that is configured."""
    return TemplatePromptAgent() if settings.kind == "template" else OpenAIPromptAgent(settings)
