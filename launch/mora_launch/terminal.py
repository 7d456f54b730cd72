"""The terminal of the command line: the console that every command writes to, and errors that nobody expected."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import click
import rich.console
from mora_runtime.files.shown_text import shown
from mora_trainer.terminal import Console, clean_tracebacks

__all__ = ["Console", "clean_tracebacks", "show_usage_error", "terminal", "write_json"]

_PIPED_WIDTH = 160  # without a terminal there is no width to fit, only tables to keep whole


def terminal() -> Console:
    """The console of a command on its standard output."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def write_json(console: rich.console.Console, content: Any) -> None:
    """Write a value for programs to read, whole and without wrapping."""
    # JSON in ASCII escapes every other control character itself
    console.file.write(json.dumps(content, indent=1).replace("\x7f", "\\u007f") + "\n")


def show_usage_error(error: click.ClickException) -> None:
    """As click shows it, without the control characters of what was given."""
    text = io.StringIO()
    error.show(file=text)
    sys.stderr.write(shown(text.getvalue()))
