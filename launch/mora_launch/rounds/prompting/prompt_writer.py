"""Prompts from a language model behind an endpoint: few-shot with examples, or zero-shot from the instruction alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from mora_launch.chat.endpoint import Chat
from mora_launch.rounds.prompting.grammar import grammar_prompts
from mora_launch.rounds.settings import PromptSettings

_PER_ANSWER = 10
_MAX_ANSWERS = 20  # without end a model that repeats itself would be asked for ever
_SHOWN = 30  # of the prompts that were used, so that it does not repeat them
_INSTRUCTION = (
    "You write prompts for a system that makes short videos from text. Each prompt is one English sentence of 10 to 40 "
    "words: a subject, what it does, where, and where it fits a style or a camera movement. Make them as different "
    "from each other as you can in subject, place, mood, time and scale. No text in the picture, no brands, no real "
    f"people. JudgeAnswer with exactly {_PER_ANSWER} prompts, one a line, without numbers, quotes or anything else."
)
_MARK = re.compile(r"^\s*(?:\d+[.):]|[-*•])\s+")


class PromptWriter:
    """Asks until its caller has enough."""

    def __init__(self, settings: PromptSettings) -> None:
        assert settings.endpoint is not None
        self._chat = Chat(settings.endpoint, "writer of prompts (synthesis.prompts.endpoint)")
        self._mode = settings.mode

    def prompts(self, used: Sequence[str]) -> Iterator[str]:
        """Prompts as the model writes them; EndpointFailed where it cannot be reached."""
        written = list(used)
        for _ in range(_MAX_ANSWERS):
            lines = parse_prompts(self._chat.ask(self._messages(written), temperature=1.0) or "")
            written += lines
            yield from lines

    def _messages(self, written: Sequence[str]) -> list[dict[str, Any]]:
        messages = [{"role": "system", "content": _INSTRUCTION}]
        if self._mode == "few_shot":
            examples = "\n".join(islice(grammar_prompts("examples"), _PER_ANSWER))
            messages += [{"role": "user", "content": "Write prompts."}, {"role": "assistant", "content": examples}]
        avoid = "\n".join(written[-_SHOWN:])
        again = f" None may resemble one of these:\n{avoid}" if avoid else ""
        return [*messages, {"role": "user", "content": f"Write {_PER_ANSWER} new prompts.{again}"}]


def parse_prompts(text: str) -> list[str]:
    """Lines of an answer without numbers, bullets and quotes; those of fewer than three words are left out."""
    lines = [_MARK.sub("", line).strip().strip("\"'“”").strip() for line in text.splitlines()]
    return [line for line in lines if len(line.split()) >= 3 and not line.endswith(":")]
