"""Tensors by key in a folder that several processes share: one safetensors file for each key, whole or absent."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.fresh_file import write_fresh
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_log = logging.getLogger(__name__)
_KEY = re.compile(r"[0-9a-f]{64}")
_MAX_NBYTES = 1 << 30


class TensorFiles:
    """Files of floating-point tensors.

    Args:
        folder: is made if it is absent.
        shapes: of each tensor of a file, by name; None = any length.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
        self.folder = folder
        self._shapes = shapes
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of a key; None if there is no file, or, with a warning, if the file is not as it should be."""
        if not _KEY.fullmatch(key):
            return None
        path = self._path(key)
        try:
            tensors = load(read_foreign(path, _MAX_NBYTES))
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError) as error:
            _log.warning("cache file %s is made again: it cannot be read (%s)", path, error)
            return None
        fault = self._fault(tensors)
        if fault is not None:
            _log.warning("cache file %s is made again: %s", path, fault)
            return None
        return tensors

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> bool:
        """Write the file of a key. False, with a warning, if the disk refuses: a cache must not end a job.

        Two writers of one key write the same content, each to a file of its own, which is then renamed.
        """
        try:
            write_fresh(self._path(key), save(dict(tensors)))
        except (OSError, SafetensorError) as error:
            _log.warning("cache file %s cannot be written (%s); its content stays in memory", self._path(key), error)
            return False
        return True

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _fault(self, tensors: Mapping[str, Tensor]) -> str | None:
        if tensors.keys() != self._shapes.keys():
            return f"expected tensors {', '.join(self._shapes)}, got {', '.join(tensors) or 'none'}"
        for name, expected in self._shapes.items():
            tensor, shape = tensors[name], tuple(tensors[name].shape)
            fits = len(shape) == len(expected) and all(
                own in (None, size) for own, size in zip(expected, shape, strict=True)
            )
            if not fits or not tensor.is_floating_point() or tensor.numel() == 0:
                told = ", ".join("any" if size is None else str(size) for size in expected)
                return f"expected `{name}` as floating-point numbers ({told}), got {tensor.dtype} {shape}"
            if not tensor.isfinite().all():
                return f"expected finite numbers in `{name}`"
        return None
