"""All errors of this package, in one tree.

SeineError
├── ConfigError         a config has a value that this model does not support
├── WeightsFileError    weights do not fit the model, or cannot be read
└── InputError          a call has a tensor, text or size that does not fit
"""

from __future__ import annotations


class SeineError(ValueError):
    """Base of every error that this package raises on purpose."""


class ConfigError(SeineError):
    """A config lacks a key, or has a value that is not supported."""


class WeightsFileError(SeineError):
    """A checkpoint has missing, unexpected, mis-shaped or non-finite tensors, or cannot be read."""


class InputError(SeineError):
    """A call's tensors, sizes or texts do not fit the model."""
