"""The error of the reader."""

from __future__ import annotations


class Unreadable(ValueError):
    """A file is no picture or video that can be read; the text follows the name of the file or of its field."""
