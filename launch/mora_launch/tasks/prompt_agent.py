"""The prompt agent: makes a short wish into the long description that image models were trained on.

`template` is a documented rewriting by rules and no language model; `openai` asks one behind any OpenAI-compatible
endpoint (paper, section A.3).
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
_QUOTES = (('"', '"'), ("\u201c", "\u201d"))  # around the whole description, as some models put them


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
    """A language model behind an endpoint."""

    def __init__(self, settings: PromptAgentSettings) -> None:
        self._chat = Chat(settings, "prompt agent (serving.prompts; kind: template needs none)")
        self.name = settings.model

    def enhance(self, prompt: str) -> str:
        """The model's description; the prompt as it is where the answer is none: empty, or longer than any could be.

        Raises:
            EndpointFailed: the endpoint gave no answer in time, or one that is not of the chat protocol.
        """
        said = self._chat.ask([{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": prompt}])
        description = " ".join((said or "").split())
        for opening, closing in _QUOTES:
            if len(description) > 2 and description.startswith(opening) and description.endswith(closing):
                description = description[1:-1].strip()
        return description if 0 < len(description) <= MAX_PROMPT_ANSWER_LENGTH else prompt


def prompt_agent(settings: PromptAgentSettings) -> PromptAgent:
    """The one that is configured."""
    return TemplatePromptAgent() if settings.kind == "template" else OpenAIPromptAgent(settings)
