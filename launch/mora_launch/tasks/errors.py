"""What a request may not ask for."""

from __future__ import annotations

from mora_runtime.errors import ConfigurationError


class BadRequest(ConfigurationError):
    """A field of a request does not fit.

    Attributes:
        field: its name.
    """

    code = "bad_request"

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field = field
