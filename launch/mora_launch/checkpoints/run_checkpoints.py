"""`mora checkpoint`: looking at the checkpoints of a run, checking them, and taking weights out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mora_runtime.errors import CheckpointError
from mora_runtime.files.shard_file import verify
from mora_trainer.checkpoint.commit_record import (
    MANIFEST,
    CheckpointInfo,
    check_folder,
    committed,
    is_folder_name,
    read_manifest,
)
from rich.table import Table

from mora_launch.checkpoints.exported_weights import export_weights

_PATTERN = "step-????????"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: `<run>/checkpoints`.
    """

    folder: Path

    @classmethod
    def of_run(cls, run: Path) -> Checkpoints:
        """CheckpointError where the folder is no run."""
        folder = run / "checkpoints"
        if not folder.is_dir():
            raise CheckpointError(f"{run}: has no folder `checkpoints`; expected the directory of a run")
        check_folder(folder)
        return cls(folder)

    def all(self) -> list[CheckpointInfo]:
        """By step. What has no manifest was never finished, and is left out."""
        found = (path for path in self.folder.glob(_PATTERN) if is_folder_name(path.name))
        folders = sorted(path for path in found if os.path.lexists(path / MANIFEST))
        return [read_manifest(self.folder, path.name) for path in folders]

    def find(self, step: int | None) -> CheckpointInfo:
        """The checkpoint after `step` steps; None is the committed one.

        Raises:
            CheckpointError: there is none; the text names those there are.
        """
        found = committed(self.folder) if step is None else next((c for c in self.all() if c.step == step), None)
        if found is None:
            there = ", ".join(str(info.step) for info in self.all()) or "none"
            wanted = "nothing is committed" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"{self.folder}: {wanted}; there are: {there}")
        return found

    def table(self) -> Table:
        """One line a checkpoint."""
        record = committed(self.folder)
        table = Table("step", "folder", "files", "MB", "replicas", "", box=None, pad_edge=False)
        for info in self.all():
            nbytes = sum(file.nbytes for file in info.files)
            state = "committed: a resume starts here" if record is not None and record.folder == info.folder else ""
            row = (info.step, info.folder, len(info.files), f"{nbytes / 1e6:.1f}", info.num_replicas, state)
            table.add_row(*map(str, row))
        return table

    def verify(self, info: CheckpointInfo) -> int:
        """Compare every file's size and hash with the manifest; returns how many.

        Raises:
            CheckpointError: naming the first that differs, or that the manifest does not name.
        """
        info.check_files(self.folder / info.folder)
        for file in info.files:
            verify(file, self.folder / info.folder)
        return len(info.files)

    def export(self, info: CheckpointInfo, target: Path, *, average: bool) -> list[Path]:
        """Copy every agent's weights, checked, to `target/<agent>/`, as their own libraries load them.

        Args:
            average: the moving average instead of the weights themselves.

        Raises:
            CheckpointError: a file is damaged, nothing of that kind was saved, or the target has files already.
        """
        part = "ema" if average else "weights"
        return export_weights(info, self.folder / info.folder, target, part=part)
