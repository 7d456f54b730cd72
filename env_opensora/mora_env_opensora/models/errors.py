"""All errors of this distribution, in one tree.

OpenSoraError
├── ConfigError        a config.json has a key or value that these models do not support
├── WeightsFileError    weights do not fit the model, or contain NaN
└── InputError         a call has a tensor, prompt or size that does not fit
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
