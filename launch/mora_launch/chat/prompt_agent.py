"""The prompt agent: turns a short wish into a long description like those that image models were trained on.

`template` rewrites it by rules, without a language model; `openai` asks a language model behind any OpenAI-compatible
endpoint (paper, section A.3); `none` leaves it as it is.
"""

from __future__ import annotations

from typing import Protocol

from mora_launch.chat.endpoint import Chat
from mora_launch.limits import MAX_PROMPT_ANSWER_LENGTH
from mora_launch.serving.settings import PromptAgentSettings

_INSTRUCTION = (
    "You rewrite a short wish for a video into one description for a text-to-image model: subject, action, setting, "
    "light, style, camera. Keep everything the wish says, add nothing against it. Answer with the description alone, "
    "at most 70 words."
)
_DETAIL = "The scene is coherent and clearly lit, with rich detail, natural colours and a steady camera."
_QUOTES = (('"', '"'), ("\u201c", "\u201d"))  # some models put them around the whole description


class PromptAgent(Protocol):
    """Rewrites prompts."""

    name: str

    async def enhance(self, prompt: str) -> str:
        """Return the prompt to make pictures from. If the task is cancelled, a question to a model is taken back."""


class TemplatePromptAgent:
    """Works offline: the wish as a sentence and one about detail and light, unless the wish is already long."""

    name = "template"

    async def enhance(self, prompt: str) -> str:
        """Rewrite a prompt deterministically; one of 40 words or more is unchanged."""
        wish = " ".join(prompt.split())
        if len(wish.split()) >= 40 or wish.endswith(_DETAIL):
            return wish
        return f"{wish[0].upper()}{wish[1:].rstrip('.')}. {_DETAIL}"


class OpenAIPromptAgent:
    """A language model behind an endpoint."""

    def __init__(self, settings: PromptAgentSettings) -> None:
        self._chat = Chat(settings, "prompt agent (serving.prompts; kind: template needs none)")
        self.name = settings.model

    async def enhance(self, prompt: str) -> str:
        """Return the model's description, or the prompt itself if the answer is empty or far too long.

        If the task is cancelled, the connection is closed at once.

        Raises:
            EndpointFailed: the endpoint gave no answer in time, or one that is not a chat completion.
        """
        return _description(await self._chat.ask_async(_question(prompt)), prompt)


def _question(prompt: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": prompt}]


def _description(said: str | None, prompt: str) -> str:
    """Return the description in an answer, or the prompt itself if the answer is empty or far too long."""
    description = " ".join((said or "").split())
    for opening, closing in _QUOTES:
        if len(description) > 2 and description.startswith(opening) and description.endswith(closing):
            description = description[1:-1].strip()
    return description if 0 < len(description) <= MAX_PROMPT_ANSWER_LENGTH else prompt


class NoPromptAgent:
    """Leaves every prompt as it is."""

    name = "none"

    async def enhance(self, prompt: str) -> str:
        """Return the prompt."""
        return prompt


def prompt_agent(settings: PromptAgentSettings) -> PromptAgent:
    """Return the configured prompt agent."""
    if settings.kind == "openai":
        return OpenAIPromptAgent(settings)
    return TemplatePromptAgent() if settings.kind == "template" else NoPromptAgent()
