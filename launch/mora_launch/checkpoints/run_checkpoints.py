"""`mora checkpoint`: lists, verifies and exports the checkpoints of a run."""

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

from mora_launch.checkpoints.export import Export
from mora_launch.checkpoints.export_format import exported_agents
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
        """Return the checkpoints of a run directory. Raises: CheckpointError: the folder is not a run."""
        folder = run / "checkpoints"
        if not folder.is_dir():
            raise CheckpointError(f"{run}: has no folder `checkpoints`; expected the directory of a run")
        check_folder(folder)
        return cls(folder)

    def all(self) -> list[CheckpointInfo]:
        """Return the complete checkpoints by step; a folder without a manifest was never finished."""
        found = (path for path in self.folder.glob(_PATTERN) if is_folder_name(path.name))
        folders = sorted(path for path in found if os.path.lexists(path / MANIFEST))
        return [read_manifest(self.folder, path.name) for path in folders]

    def find(self, step: int | None) -> CheckpointInfo:
        """Return the checkpoint after `step` steps; None is the committed one.

        Raises:
            CheckpointError: it does not exist; the message lists the existing ones.
        """
        found = committed(self.folder) if step is None else next((c for c in self.all() if c.step == step), None)
        if found is None:
            existing = ", ".join(str(info.step) for info in self.all()) or "none"
            wanted = "no checkpoint is committed" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"{self.folder}: {wanted}; existing steps: {existing}")
        return found

    def table(self) -> Table:
        """Return a table with one line per checkpoint."""
        record = committed(self.folder)
        table = Table("step", "folder", "files", "MB", "replicas", "", box=None, pad_edge=False)
        for info in self.all():
            nbytes = sum(file.nbytes for file in info.files)
            state = "committed: a resume starts here" if record is not None and record.folder == info.folder else ""
            row = (info.step, info.folder, len(info.files), f"{nbytes / 1e6:.1f}", info.num_replicas, state)
            table.add_row(*map(str, row))
        return table

    def verify(self, info: CheckpointInfo) -> int:
        """Compare every file's size and hash with the manifest; return the number of files.

        Raises:
            CheckpointError: names the first file that differs or is not in the manifest.
        """
        info.check_files(self.folder / info.folder)
        for file in info.files:
            verify(file, self.folder / info.folder)
        return len(info.files)

    def export(self, info: CheckpointInfo, target: Path, wanted: Export) -> list[Path]:
        """Verify agents' weights and copy them to `target/<agent>/`, in the wanted format; return these folders.

        Raises:
            MoraError: a file is damaged, the checkpoint lacks the part or agent, its adapters cannot be converted, or
                the target already exists.
        """
        agents = exported_agents(info, wanted.part, wanted.format, wanted.agents)
        return export_weights(
            info, self.folder / info.folder, target, part=wanted.part, agents=agents,
            converters=wanted.converters(info, agents, self.folder.parent), told=wanted.told,
        )  # fmt: skip
