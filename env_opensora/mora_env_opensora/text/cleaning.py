"""Cleans captions like the text encoder's captions in training: the DeepFloyd rules, applied twice.

The rules run in order, each on the result of the previous one.
"""

from __future__ import annotations

import html
import re
import urllib.parse
from collections.abc import Iterable

import ftfy
from bs4 import BeautifulSoup

_DOMAINS = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
_SUFFIXES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
_DASHES = (
    "\\-\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    "\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)


def _compiled(*rules: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in rules)


_ADDRESSES = _compiled(
    (r"<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-zA-Z0-9%])|{_DOMAINS})", ""),
    (rf"\b(?:www:(?:/{{1,3}}|[a-zA-Z0-9%])|{_DOMAINS})", ""),
)
_SYMBOLS = _compiled(
    (r"@[\w\d]+\b", ""),  # nicknames
    (r"[\u31c0-\u4dff]+", ""),  # strokes, katakana extensions, enclosed and compatibility forms, ext-A, hexagrams
)
_NOISE = _compiled(
    (rf"[{_DASHES}]+", "-"),
    (r"[`´«»“”¨]", '"'),
    (r"[‘’]", "'"),
    (r"&quot;?", ""),
    (r"&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # IP addresses
    (r"\d:\d\d\s+$", ""),  # a time at the end
    (r"\\n", " "),  # a literal backslash-n
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"[\S]+\.(?:{_SUFFIXES})", ""),  # file names
    (r"[\"']{2,}", '"'),
    (r"[.]{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
    (r"\s+\.\s+", " "),
)
_JUNK = _compiled(
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # jc6640
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),  # jc6640vc
    (r"\b\d+[a-zA-Z]+\d+\b", ""),  # 6640vc231
    (r"(worldwide\s+)?(free\s+)?shipping", ""),
    (r"(free\s)?download(\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{_SUFFIXES})(\simage[s]?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),  # j2d1a2a
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),  # 1920x1080, also with the Cyrillic letter and the multiplication sign
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
)
_EDGES = _compiled(
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)
_JOINERS = re.compile(r"[-_]")


def clean_caption(text: str) -> str:
    """Clean twice, because the result of one pass may contain new noise."""
    return _clean_once(_clean_once(text))


def lower_caption(text: str) -> str:
    """The only rule if cleaning is off."""
    return text.lower().strip()


def _clean_once(text: str) -> str:
    text = urllib.parse.unquote_plus(text).strip().lower()
    text = _apply(_ADDRESSES, text)
    text = BeautifulSoup(text, features="html.parser").text
    text = _apply(_SYMBOLS, text)
    text = _apply(_NOISE, text)
    if len(_JOINERS.findall(text)) > 3:  # this-is-a-slug-of-words
        text = _JOINERS.sub(" ", text)
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    text = _apply(_JUNK, text).strip()
    return _apply(_EDGES, text).strip()


def _apply(rules: Iterable[tuple[re.Pattern[str], str]], text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text
