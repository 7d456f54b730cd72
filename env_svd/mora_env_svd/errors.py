"""All errors of this environment, in one tree.

VideoError
├── ConfigError         a config has a value that this model does not support
├── WeightsFileError    weights do not fit the model, or cannot be read
└── InputError          a call has a tensor, text or size that does not fit
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mora_runtime.errors import BadArgument


class VideoError(ValueError):
    """Base of every error that this environment raises on purpose."""


class ConfigError(VideoError):
    """A config lacks a key, or has a value that is not supported."""


class WeightsFileError(VideoError):
    """A checkpoint has missing, unexpected, mis-shaped or non-finite tensors, or cannot be read."""


class InputError(VideoError):
    """A call's tensors, sizes or texts do not fit the model."""


@contextmanager
def as_bad_argument() -> Iterator[None]:
    """Turn this environment's errors into BadArgument with the same text, which reaches the caller."""
    try:
        yield
    except VideoError as error:
        raise BadArgument(str(error)) from error
