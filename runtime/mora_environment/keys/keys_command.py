"""The command `keys`: the options of every kind in words, for the launcher, which cannot import the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mora_environment.keys.documented_keys import documented_keys, first_paragraph
from mora_environment.kind import Kind


def answer_keys(kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Of each kind: `about`, what its options class says of itself, and `keys`, each a `DocumentedKey`."""
    return {
        name: {
            "about": first_paragraph(kind.options.__doc__),
            "keys": [key.model_dump(mode="json") for key in documented_keys(kind.options)],
        }
        for name, kind in kinds.items()
    }
