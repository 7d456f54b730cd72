"""Which prompts say nearly the same: MinHash over pairs of neighbouring words.

The share of equal places in two signatures estimates the Jaccard similarity of their sets of word pairs, with a
standard error of at most 0.5 / sqrt(NUM_HASHES) = 0.044.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import numpy.typing as npt

NUM_HASHES = 128
_PRIME = (1 << 31) - 1  # products of two 31-bit numbers fit into 64 bits
_draw = np.random.default_rng(20240319)
_FACTORS = _draw.integers(1, _PRIME, NUM_HASHES, dtype=np.uint64)
_OFFSETS = _draw.integers(0, _PRIME, NUM_HASHES, dtype=np.uint64)

Signature = npt.NDArray[np.uint64]


def word_pairs(text: str) -> set[str]:
    """Pairs of neighbouring words, punctuation and case aside; single words where there is but one."""
    words = re.findall(r"\w+", text.lower())
    return {f"{first} {second}" for first, second in pairwise(words)} or set(words)


def signature(text: str) -> Signature:
    """The least value of each hash over the text's word pairs, uint64 (NUM_HASHES,)."""
    hashed = [int.from_bytes(blake2b(pair.encode(), digest_size=8).digest(), "big") for pair in word_pairs(text)]
    values = np.array([value % _PRIME for value in hashed], dtype=np.uint64)
    if not len(values):
        return np.full(NUM_HASHES, _PRIME, dtype=np.uint64)
    return np.asarray(((values[:, None] * _FACTORS + _OFFSETS) % np.uint64(_PRIME)).min(axis=0), dtype=np.uint64)


def similarity(first: Signature, second: Signature) -> float:
    """Estimated Jaccard similarity, 0 to 1."""
    return float((first == second).mean())


class SeenPrompts:
    """Prompts that were used, and whether another would repeat one of them."""

    def __init__(self, max_similarity: float) -> None:
        self._max_similarity = max_similarity
        self._signatures: list[Signature] = []

    def add(self, prompt: str) -> bool:
        """Remember a prompt; False, and nothing remembered, where it repeats one."""
        mine = signature(prompt)
        if any(similarity(mine, other) > self._max_similarity for other in self._signatures):
            return False
        self._signatures.append(mine)
        return True
