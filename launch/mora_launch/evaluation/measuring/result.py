"""The result of one dimension for one video, as a line of `results.jsonl`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Key:
    """What a result depends on. A result with another key, of a changed file for example, is none of this one's.

    Attributes:
        sha256: of the video's file.
        version: of the metric, for this dimension.
        settings: hash of everything else: options, weights, device, prompt.
    """

    sha256: str
    dimension: str
    version: str
    settings: str


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Hash settings, a JSON value."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Result:
    """One measurement.

    Attributes:
        score: the video's value on the scale of the overall value; None if the metric refuses the video, or if it gave
            features instead.
        weight: the video's share in the overall value, which is the weighted mean.
        refused: why the metric refuses the video; empty if it does not.
        details: what else the metric told: numbers, and lists of numbers by frame or pair.
        seconds: how long the metric took.
    """

    file: str
    key: Key
    metric: str
    settings: dict[str, Any]
    score: float | None = None
    weight: float = 1.0
    refused: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    num_frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    seconds: float = 0.0

    def content(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return asdict(self)

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> Result:
        """Return the result of a line's content. Raises: TypeError, KeyError: it is none."""
        known = {**content, "key": Key(**content["key"])}
        return cls(**known)

    @property
    def value(self) -> float:
        """The score; NaN of a refused video."""
        return math.nan if self.score is None else self.score
