"""What `mora generate` makes: a file and the JSON beside it, looked at before any work, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mora_runtime.errors import SettingsError, StorageError
from mora_runtime.files.fresh_file import check_writable, write_fresh


class ResultFile:
    """One output.

    Args:
        path: its folder is made when absent; a result of before is replaced.
        inputs: files that the result is made from, which it may not replace.

    Raises:
        SettingsError: nothing can be written there, or it is one of the inputs.
    """

    def __init__(self, path: Path, inputs: Collection[str] = ()) -> None:
        self.path = path
        self.beside = path.with_name(path.name + ".json")
        if any(path.exists() and os.path.samefile(path, each) for each in inputs):
            raise SettingsError(f"-o {path}: is an input too, and a run without its inputs cannot be repeated")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_writable(path)
        except OSError as error:
            raise SettingsError(f"-o {path}: cannot be written there: {error.strerror}") from None

    def write(self, content: bytes, metadata: dict[str, Any]) -> None:
        """Put both files in their places. Raises: StorageError: the disk took it not; what was there before stands."""
        try:
            for target, data in ((self.path, content), (self.beside, json.dumps(metadata, indent=1).encode())):
                write_fresh(target, data)
        except OSError as error:
            raise StorageError(
                f"-o {self.path}: could not be written: {error.strerror}; make room, and again"
            ) from None
