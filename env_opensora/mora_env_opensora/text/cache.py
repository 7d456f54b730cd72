"""Encoder rows by content key: in memory, and on disk so that the encoder need not be loaded again."""

from __future__ import annotations

from pathlib import Path

from mora_training.tensor_files import TensorFiles
from torch import Tensor

from mora_env_opensora.models import InputError

_SHAPES = {"rows": (None, None)}


class TextCache:
    """Rows (L, C) on the CPU. A file on disk that is not as it should be counts as absent."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._files = None if folder is None else TensorFiles(folder, _SHAPES)
        self._rows: dict[str, Tensor] = {}

    def find(self, key: str) -> Tensor | None:
        if key not in self._rows and self._files is not None:
            found = self._files.read(key)
            if found is None:
                return None
            self._rows[key] = found["rows"]
        return self._rows.get(key)

    def __getitem__(self, key: str) -> Tensor:
        """Raises: InputError: the key is unknown."""
        rows = self.find(key)
        if rows is None:
            raise InputError(
                f"prompt key `{key[:12]}…` is unknown; expected one that `encode` returned; encode it first"
            )
        return rows

    def store(self, key: str, rows: Tensor) -> None:
        rows = rows.detach().cpu().contiguous()
        self._rows[key] = rows
        if self._files is not None:
            self._files.write(key, {"rows": rows})
