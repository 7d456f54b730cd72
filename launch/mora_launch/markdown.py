"""Text of other people's on pages that read Markdown."""

from __future__ import annotations

import re

_MEANS_SOMETHING = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:/@&])")


def as_plain(text: str) -> str:
    """The text so that Markdown shows it as it is: a prompt shall not load a picture of another site, or be a link."""
    return _MEANS_SOMETHING.sub(r"\\\1", " ".join(text.split()))
