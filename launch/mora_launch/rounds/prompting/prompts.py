"""A round's prompts, from rules, a file or a language model, none of which repeats another of the same run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from mora_runtime.errors import RoundError, SettingsError

from mora_launch.rounds.prompting.grammar import grammar_prompts
from mora_launch.rounds.prompting.seen_prompts import SeenPrompts
from mora_launch.rounds.prompting.shapes_prompts import shapes_prompts
from mora_launch.rounds.settings import PromptSettings

_MAX_DRAWS = 50  # for each prompt that is wanted, before a source counts as exhausted


def new_prompts(
    settings: PromptSettings, *, number: int, seed: str, used: Sequence[str], is_held_out: bool = False
) -> list[str]:
    """`number` prompts that repeat neither each other nor any of `used`.

    Args:
        is_held_out: those that training never shows, where the source has a part for them.

    Raises:
        RoundError: the source gave too few new ones; the text says how many, and what to change.
    """
    seen = SeenPrompts(settings.max_similarity)
    for prompt in used:
        seen.add(prompt)
    found: list[str] = []
    for prompt in islice(_source(settings, seed, used, is_held_out), _MAX_DRAWS * max(1, number)):
        if len(found) == number:
            break
        if prompt.strip() and len(prompt) <= settings.max_length and seen.add(prompt):
            found.append(prompt.strip())
    if len(found) < number:
        raise RoundError(
            f"prompts: expected {number} that are new, the source `{settings.source}` gave {len(found)}; raise "
            "synthesis.prompts.max_similarity, ask for fewer, or take another source"
        )
    return found


def _source(settings: PromptSettings, seed: str, used: Sequence[str], is_held_out: bool) -> Iterator[str]:
    if settings.source == "file":
        return iter(_lines(Path(str(settings.file))))
    if settings.source == "endpoint":
        from mora_launch.rounds.prompting.prompt_writer import PromptWriter

        return PromptWriter(settings).prompts(used)
    return (
        shapes_prompts(seed, is_held_out_wanted=is_held_out) if settings.source == "shapes" else grammar_prompts(seed)
    )


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"synthesis.prompts.file {path}: cannot be read: {error}") from None
