"""Which prompts say nearly the same: the Jaccard similarity of their sets of pairs of neighbouring words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Set
from itertools import pairwise


def word_pairs(text: str) -> frozenset[str]:
    """Pairs of neighbouring words, punctuation and case aside; the word itself where there is only one."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(f"{first} {second}" for first, second in pairwise(words)) or frozenset(words)


def similarity(first: Set[str], second: Set[str]) -> float:
    """Jaccard similarity of two sets that are not both empty: shared elements over all elements, 0 to 1."""
    num_shared = len(first & second)
    return num_shared / (len(first) + len(second) - num_shared)


class SeenPrompts:
    """Prompts that were used, and whether another would repeat one of them."""

    def __init__(self, max_similarity: float) -> None:
        self._max_similarity = max_similarity
        self._seen: list[frozenset[str]] = []
        self._by_pair: defaultdict[str, list[int]] = defaultdict(list)  # indices into `_seen`

    def add(self, prompt: str) -> bool:
        """Remember a prompt; False, and nothing remembered, where it repeats one."""
        mine = word_pairs(prompt) or frozenset([""])  # prompts without any word repeat each other
        if any(similarity(mine, self._seen[index]) > self._max_similarity for index in self._candidates(mine)):
            return False
        for pair in mine:
            self._by_pair[pair].append(len(self._seen))
        self._seen.append(mine)
        return True

    def _candidates(self, mine: frozenset[str]) -> set[int]:
        """A superset of the prompts over the limit: each lacks less than a share of (1 - limit) of these pairs.

        So each has at least one of any larger number of them, and the rarest are found in the fewest prompts.
        """
        num_pairs = int((1.0 - self._max_similarity) * len(mine)) + 1
        rarest = sorted(mine, key=lambda pair: len(self._by_pair[pair]))[:num_pairs]
        return set().union(*(self._by_pair[pair] for pair in rarest))
