"""The prompt agent: makes a short wish into the long description that image models were trained on.

`template` is a documented rewriting by rules and no language model; `openai` asks one behind any OpenAI-compatible
endpoint (paper, section A.3).
"""

from __future__ import annotations

from typing import Protocol

from mora_runtime.errors import EnvironmentFailed

from mora_launch.serving.settings import PromptAgentSettings

_INSTRUCTION = (
    "You rewrite a short wish for a video into one description for a text-to-image model: subject, action, setting, "
    "light, style, camera. Keep everything the wish says, add nothing against it. Answer with the description alone, "
    "at most 70 words."
)
_DETAIL = "The scene is coherent and clearly lit, with rich detail, natural colours and a steady camera."


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
    """A language model; its key stands in OPENAI_API_KEY, as its package reads it."""

    def __init__(self, settings: PromptAgentSettings) -> None:
        self._settings = settings
        self.name = settings.model

    def enhance(self, prompt: str) -> str:
        """Raises: EnvironmentFailed: the endpoint gave no answer."""
        import openai

        settings = self._settings
        try:
            client = openai.OpenAI(base_url=settings.base_url, timeout=settings.timeout_s)
            answer = client.chat.completions.create(
                model=settings.model,
                messages=[{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": prompt}],
            )
        except openai.OpenAIError as error:
            hint = "or set serving.prompts.kind: template"
            raise EnvironmentFailed(f"prompt agent {settings.model}: {error}; {hint}") from None
        return (answer.choices[0].message.content or "").strip() or prompt


def prompt_agent(settings: PromptAgentSettings) -> PromptAgent:
    """The one that is configured."""
    return TemplatePromptAgent() if settings.kind == "template" else OpenAIPromptAgent(settings)
