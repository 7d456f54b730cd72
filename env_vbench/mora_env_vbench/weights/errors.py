"""Errors of weights."""

from __future__ import annotations

from mora_runtime.errors import SettingsError


class WeightsRefused(SettingsError):
    """A file of weights is absent, unsafe, damaged or of another layout; one line says which."""
