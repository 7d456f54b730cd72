"""The error for invalid requests."""

from __future__ import annotations

from mora_runtime.errors import ConfigurationError


class BadRequest(ConfigurationError):
    """A field of a request is invalid.

    Attributes:
        field: name of the field.
    """

    code = "bad_request"

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field = field
