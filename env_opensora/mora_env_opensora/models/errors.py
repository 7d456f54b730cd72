"""What can go wrong in this distribution, one tree.

OpenSoraError
├── ConfigError        a config.json names or sets something these models do not have
├── WeightsFileError    weights do not fit the model, or hold NaN
└── InputError         a tensor, prompt or size that a model or pipeline was called with
"""

from __future__ import annotations


class OpenSoraError(ValueError):
    """Base of every error this distribution raises on purpose."""


class ConfigError(OpenSoraError):
    """A model config has an unknown key, a missing key or a value that is not supported."""


class WeightsFileError(OpenSoraError):
    """A checkpoint has missing, unexpected, mis-shaped or non-finite tensors, or cannot be read."""


class InputError(OpenSoraError):
    """A call's tensors, sizes or texts do not fit the model."""
