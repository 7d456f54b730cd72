"""The console of Mora's processes: rich's, with control characters removed from all untrusted text.

Prompts, paths, and errors of endpoints and role processes are untrusted, and a terminal interprets escape codes in
them: they move the cursor, change the title, hide lines. So every piece of text is cleaned when it is rendered, in
lines, tables, progress bars and questions. Rich adds its own styling afterwards, so that still works.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from mora_runtime.files.shown_text import shown
from rich import console
from rich.segment import Segment


class Console(console.Console):
    """Rich's console with markup off by default, because `[link=...]` in untrusted text would be interpreted too."""

    def __init__(self, *, markup: bool = False, highlight: bool = False, emoji: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, highlight=highlight, emoji=emoji, **options)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(_cleaned(segment) for segment in buffer)


def _cleaned(segment: Segment) -> Segment:
    if segment.control:  # from rich itself, for instance to move the cursor of a progress bar
        return segment
    text = shown(segment.text)
    return segment if text is segment.text else Segment(text, segment.style)


class _CleanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def clean_tracebacks() -> None:
    """Print uncaught exceptions and warnings without control characters, because their texts are untrusted too."""

    def show(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        sys.stderr.write(shown("".join(traceback.format_exception(kind, error, trace))))

    def show_of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            sys.stderr.write(f"in thread {args.thread.name if args.thread else '?'}:\n")
            show(args.exc_type, args.exc_value, args.exc_traceback)

    if logging.lastResort is not None:  # prints warnings if no log has been opened
        logging.lastResort.setFormatter(_CleanFormatter())
    sys.excepthook = show
    threading.excepthook = show_of_thread
