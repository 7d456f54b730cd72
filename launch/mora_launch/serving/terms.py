"""The terms on which a request is served: for whom, how urgently, and with which adapters."""

from __future__ import annotations

from mora_runtime.errors import SettingsError
from mora_runtime.schema import Settings
from pydantic import Field

from mora_launch.limits import MAX_PRIORITY


class LoraChoice(Settings):
    """Adapters by their name in `serving.adapters`, and the factor of what they add to the model."""

    name: str
    scale: float = Field(default=1.0, ge=0.0, le=1.0)

    @classmethod
    def parse(cls, text: str, option: str) -> LoraChoice:
        """Read `NAME` or `NAME:SCALE`. Raises: SettingsError: the scale is wrong; the message begins with `option`."""
        name, colon, scale = text.partition(":")
        try:
            return cls(name=name, scale=float(scale) if colon else 1.0)
        except ValueError:
            raise SettingsError(f"{option}: expected NAME or NAME:SCALE with 0 to 1, got {text[:80]}") from None


class Terms(Settings):
    """The same for all work of one request.

    Attributes:
        tenant: on whose behalf it is done: the name of a token, or of the server's own user.
        priority: a smaller one is served earlier, among the requests of the same tenant.
    """

    tenant: str = ""
    priority: int = Field(default=0, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    lora: LoraChoice | None = None


DEFAULT_TERMS = Terms()
