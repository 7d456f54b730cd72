"""The result of `mora generate`: a file and a JSON file next to it, each written completely or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mora_runtime.errors import SettingsError, StorageError
from mora_runtime.files.fresh_file import check_writable, write_fresh


class ResultFile:
    """One result. The constructor checks that it can be written, before any work is done.

    Args:
        path: path of the result. Its folder is created if missing; an earlier result is replaced.
        inputs: input files, which the result may not replace.

    Raises:
        SettingsError: the path cannot be written, or is one of the inputs.
    """

    def __init__(self, path: Path, inputs: Collection[str] = ()) -> None:
        self.path = path
        self.beside = path.with_name(path.name + ".json")
        if any(path.exists() and os.path.samefile(path, each) for each in inputs):
            raise SettingsError(f"-o {path}: is also an input, and a run without its inputs cannot be repeated")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_writable(path)
        except OSError as error:
            raise SettingsError(f"-o {path}: cannot be written: {error.strerror}") from None

    def write(self, content: bytes, metadata: dict[str, Any]) -> None:
        """Write both files. Raises: StorageError: a write failed; an earlier file there is kept."""
        try:
            for target, data in ((self.path, content), (self.beside, json.dumps(metadata, indent=1).encode())):
                write_fresh(target, data)
        except OSError as error:
            raise StorageError(
                f"-o {self.path}: could not be written: {error.strerror}; free disk space and try again"
            ) from None
