"""CLIP's tokens: byte pairs of lower-case words, as published with CLIP."""

from __future__ import annotations

import gzip
import html
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import ftfy
import regex
import torch
from mora_runtime.errors import BadArgument
from torch import Tensor

_VOCABULARY = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
_START, _END = "<|startoftext|>", "<|endoftext|>"
_NUM_MERGES = 49152 - 256 - 2
_END_OF_WORD = "</w>"
_WORDS = regex.compile(
    r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""",
    regex.IGNORECASE,
)
NUM_TOKENS = 49408


class Tokenizer:
    """Texts to token numbers."""

    def __init__(self) -> None:
        lines = gzip.decompress(_VOCABULARY.read_bytes()).decode("utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines[1 : _NUM_MERGES + 1]]
        self._characters = _byte_characters()
        letters = list(self._characters.values())
        words = [*letters, *(letter + _END_OF_WORD for letter in letters), *map("".join, merges), _START, _END]
        self._numbers = {word: number for number, word in enumerate(words)}
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self.word_pieces = lru_cache(maxsize=65536)(self._word_pieces)

    def ids(self, text: str, length: int, *, cut: bool) -> list[int]:
        """Token numbers of a text between start and end, filled with 0 to `length`.

        Args:
            cut: shorten a long text; the last token is the end's.

        Raises:
            BadArgument: the text is too long and must not be cut.
        """
        found = [self._numbers[_START], *self._pieces(text), self._numbers[_END]]
        if len(found) > length:
            if not cut:
                raise BadArgument(f"a text of {len(found)} tokens: CLIP takes at most {length}; shorten `{text[:40]}`")
            found = [*found[: length - 1], self._numbers[_END]]
        return found + [0] * (length - len(found))

    def batch(self, texts: list[str], length: int, *, cut: bool) -> Tensor:
        """Token numbers of several texts, int64 (n, length)."""
        return torch.tensor([self.ids(text, length, cut=cut) for text in texts], dtype=torch.int64)

    def _pieces(self, text: str) -> list[int]:
        found: list[int] = []
        for word in _WORDS.findall(_cleaned(text)):
            letters = "".join(self._characters[byte] for byte in word.encode("utf-8"))
            found += [self._numbers[piece] for piece in self.word_pieces(letters)]
        return found

    def _word_pieces(self, word: str) -> tuple[str, ...]:
        """A word's letters, joined pair by pair in the order of the vocabulary."""
        if word in (_START, _END):
            return (word,)
        pieces = (*word[:-1], word[-1] + _END_OF_WORD)
        while len(pieces) > 1:
            best = min(pairwise(pieces), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            pieces = _joined(pieces, best)
        return pieces


@cache
def tokenizer() -> Tokenizer:
    """The tokenizer of this process; reading its vocabulary takes a second."""
    return Tokenizer()


def _joined(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    found: list[str] = []
    at = 0
    while at < len(pieces):
        is_pair = pieces[at : at + 2] == pair
        found.append("".join(pair) if is_pair else pieces[at])
        at += 2 if is_pair else 1
    return tuple(found)


def _cleaned(text: str) -> str:
    plain = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return regex.sub(r"\s+", " ", plain).strip().lower()


def _byte_characters() -> dict[int, str]:
    """A printable character for each byte: itself where it is one, else the next one above 255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}
