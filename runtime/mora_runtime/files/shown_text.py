"""Untrusted text made safe for a terminal: without the characters that a terminal interprets instead of printing.

Used before text of a file, a role process or a network reaches a terminal, a log line or a status.
"""

from __future__ import annotations

# C0 except newline and tab, DEL, C1 (0x9b begins an escape sequence as ESC [ does), and the marks that reverse the
# direction of text, so that a line reads differently from its content.
_OBEYED = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_CLEANED: dict[int, str | None] = dict.fromkeys(_OBEYED)
# Unpaired surrogates, which stand for undecodable bytes of file names. Some encodings would turn them back into bytes.
_CLEANED.update(dict.fromkeys(range(0xD800, 0xE000), "\ufffd"))


def shown(text: str) -> str:
    """The text without control characters; newlines and tabs stay."""
    return text if text.isascii() and text.isprintable() else text.translate(_CLEANED)


def shown_line(text: str, max_length: int = 500) -> str:
    """The text as one line, cut to a length."""
    line = " ".join(shown(text[: 4 * max_length]).split())
    return line if len(line) <= max_length else line[: max_length - 3] + "..."
