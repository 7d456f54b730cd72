"""The terminal that Mora's processes write to: rich's, with no way for foreign text to give the terminal orders.

Prompts, paths, errors of endpoints and of children come from elsewhere, and a terminal obeys what is in them: escape
codes move the cursor, change the title, hide lines. So every piece of text is cleaned when it is rendered, wherever it
stands: in a line, a table, a progress bar or a question. Rich's own styling is added after that, and works.
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
    """Rich's console. Markup is off unless it is asked for: `[link=...]` in foreign text would be obeyed too."""

    def __init__(self, *, markup: bool = False, highlight: bool = False, emoji: bool = False, **options: Any) -> None:
        super().__init__(markup=markup, highlight=highlight, emoji=emoji, **options)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(_cleaned(segment) for segment in buffer)


def _cleaned(segment: Segment) -> Segment:
    if segment.control:  # of rich itself: it moves the cursor of a bar
        return segment
    text = shown(segment.text)
    return segment if text is segment.text else Segment(text, segment.style)


class _CleanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def clean_tracebacks() -> None:
    """Show errors that nobody expected, and warnings, without control characters; their texts are foreign, too."""

    def show(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        sys.stderr.write(shown("".join(traceback.format_exception(kind, error, trace))))

    def show_of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            sys.stderr.write(f"in thread {args.thread.name if args.thread else '?'}:\n")
            show(args.exc_type, args.exc_value, args.exc_traceback)

    if logging.lastResort is not None:  # takes warnings where no log has been opened
        logging.lastResort.setFormatter(_CleanFormatter())
    sys.excepthook = show
    threading.excepthook = show_of_thread
