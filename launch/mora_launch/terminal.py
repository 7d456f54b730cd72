"""The terminal of the command line: the console that every command writes to, and how errors are shown on it."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import click
import rich.console
from mora_runtime.files.shown_text import shown
from mora_trainer.terminal import Console, clean_tracebacks

__all__ = ["Console", "clean_tracebacks", "format_nbytes", "show_usage_error", "terminal", "write_json"]

_PIPED_WIDTH = 160  # output to a file or pipe needs to fit no terminal, and tables must not be cut


def terminal() -> Console:
    """Return a console that writes to standard output."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def write_json(console: rich.console.Console, content: Any) -> None:
    """Write a value as JSON for programs, without wrapping."""
    # ASCII-only JSON already escapes every other control character
    console.file.write(json.dumps(content, indent=1).replace("\x7f", "\\u007f") + "\n")


def format_nbytes(nbytes: int) -> str:
    """Format a size in GiB or MiB with one decimal."""
    return f"{nbytes / (1 << 30):.1f} GiB" if nbytes >= 1 << 30 else f"{nbytes / (1 << 20):.1f} MiB"


def show_usage_error(error: click.ClickException) -> None:
    """Print a usage error as click does, with the control characters of the user's input made visible."""
    text = io.StringIO()
    error.show(file=text)
    sys.stderr.write(shown(text.getvalue()))
