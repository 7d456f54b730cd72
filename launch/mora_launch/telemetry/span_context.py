"""The ids of a span, and their form in HTTP (W3C Trace Context)."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


@dataclass(frozen=True)
class SpanContext:
    """What a child needs to know of its parent.

    Attributes:
        is_sampled: False if the request's sender does not want it recorded.
    """

    trace_id: int
    span_id: int
    is_sampled: bool = True

    @classmethod
    def root(cls) -> SpanContext:
        """Return the ids of a new trace."""
        return cls(secrets.randbits(128) or 1, secrets.randbits(64) or 1)

    def child(self) -> SpanContext:
        """Return the ids of a new span of the same trace."""
        return SpanContext(self.trace_id, secrets.randbits(64) or 1, self.is_sampled)

    @classmethod
    def from_traceparent(cls, text: str) -> SpanContext | None:
        """Return the sender's span; None for a header that the standard tells receivers to ignore."""
        found = _FORM.fullmatch(text)
        if found is None or (text.startswith("00") and len(text) != 55):
            return None
        trace_id, span_id = int(found["trace"], 16), int(found["span"], 16)
        return cls(trace_id, span_id, bool(int(found["flags"], 16) & _SAMPLED)) if trace_id and span_id else None

    @property
    def shown_trace_id(self) -> str:
        """The trace's id as collectors show it."""
        return f"{self.trace_id:032x}"

    @property
    def shown_span_id(self) -> str:
        """The span's id as collectors show it."""
        return f"{self.span_id:016x}"
