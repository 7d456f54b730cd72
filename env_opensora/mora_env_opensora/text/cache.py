"""Encoder rows by content key: in memory, and on disk so that the encoder need not be loaded again."""

from __future__ import annotations

from pathlib import Path

from mora_runtime.files.fresh_file import write_fresh
from safetensors import SafetensorError  # type: ignore[attr-defined]  # defined in compiled code
from safetensors.torch import load_file, save
from torch import Tensor

from mora_env_opensora.models import InputError


class TextCache:
    """Rows (L, C) on the CPU. Files are written whole and renamed; an unreadable file counts as absent."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._rows: dict[str, Tensor] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> Tensor | None:
        if key not in self._rows and self.folder is not None:
            try:
                self._rows[key] = load_file(self.folder / f"{key}.safetensors")["rows"]
            except (FileNotFoundError, SafetensorError, KeyError):
                return None
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
        if self.folder is not None:
            # Two writers of one key write the same content, each to its own file, which is then renamed.
            write_fresh(self.folder / f"{key}.safetensors", save({"rows": rows}))
