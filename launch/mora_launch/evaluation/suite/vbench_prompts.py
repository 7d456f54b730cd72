"""VBench's prompts: which dimensions each is for, and the words of its style."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources

from mora_launch.evaluation.suite.dimensions import DIMENSIONS

_FILE = "vbench_prompts.json"


@dataclass(frozen=True)
class SuitePrompt:
    """One prompt. Two of VBench's prompts are in two groups of dimensions; they have all of them here."""

    text: str
    dimensions: tuple[str, ...]
    words: str = ""  # of its style; empty outside of appearance_style

    def num_videos(self, dimensions: Collection[str]) -> int:
        """Return the number of videos that these dimensions expect of the prompt."""
        return max((DIMENSIONS[each].num_index for each in self.dimensions if each in dimensions), default=0)


@functools.cache
def vbench_prompts() -> Mapping[str, SuitePrompt]:
    """Return all prompts of our dimensions by their text, in VBench's order."""
    content = json.loads(resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8"))
    found: dict[str, SuitePrompt] = {}
    for group in content["groups"]:
        for entry in group["entries"]:
            text, words = (entry, "") if isinstance(entry, str) else entry
            before = found.get(text, SuitePrompt(text, ()))
            found[text] = SuitePrompt(text, (*before.dimensions, *group["dimensions"]), words or before.words)
    return found


def prompts_for(dimensions: Collection[str]) -> list[SuitePrompt]:
    """Return the prompts of some of the dimensions, in VBench's order."""
    return [prompt for prompt in vbench_prompts().values() if set(prompt.dimensions) & set(dimensions)]
