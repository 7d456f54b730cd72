"""`mora checkpoint`: lists, verifies and exports the checkpoints of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mora_runtime.errors import CheckpointError
from mora_runtime.files.shard_file import verify
from mora_trainer.checkpoint.commit_record import (
    MANIFEST,
    RECORD,
    CheckpointInfo,
    check_folder,
    committed,
    is_folder_name,
    read_manifest,
)
from mora_trainer.checkpoint.pin import CheckpointPin, is_kept, is_pinned
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
        return [info for path in folders if (info := self._read(path.name)) is not None]

    def _read(self, folder: str) -> CheckpointInfo | None:
        """Read the manifest of a checkpoint; None if training has removed it meanwhile."""
        try:
            return read_manifest(self.folder, folder)
        except CheckpointError:
            if os.path.lexists(self.folder / folder / MANIFEST):
                raise
            return None

    def committed(self) -> CheckpointInfo | None:
        """Return the checkpoint that a resume starts from; None if there is none."""
        while True:
            record = self._record()
            try:
                return committed(self.folder)
            except CheckpointError:
                if self._record() == record:  # else training has committed another one, and removed this
                    raise

    def _record(self) -> tuple[int, int] | None:
        """Identity of the commit record, which every commit replaces by another file."""
        try:
            status = os.lstat(self.folder / RECORD)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def find(self, step: int | None) -> CheckpointInfo:
        """Return the checkpoint after `step` steps; None is the committed one.

        Raises:
            CheckpointError: it does not exist; the message lists the existing ones.
        """
        found = self.committed() if step is None else next((c for c in self.all() if c.step == step), None)
        if found is None:
            existing = ", ".join(str(info.step) for info in self.all()) or "none"
            wanted = "no checkpoint is committed" if step is None else f"no checkpoint of step {step}"
            raise CheckpointError(f"{self.folder}: {wanted}; existing steps: {existing}")
        return found

    def pinned(self, step: int | None) -> tuple[CheckpointInfo, CheckpointPin]:
        """As `find`, with a pin: training does not remove the checkpoint before the pin is closed."""
        while True:
            info = self.find(step)
            try:
                pin = CheckpointPin(self.folder, info.folder)
            except CheckpointError:
                if os.path.lexists(self.folder / info.folder / MANIFEST):
                    raise
                continue  # it has been removed since; `find` finds a newer one, or says which exist
            return read_manifest(self.folder, info.folder), pin

    def table(self) -> Table:
        """Return a table with one line per checkpoint."""
        record = self.committed()
        table = Table("step", "folder", "files", "MB", "replicas", "", box=None, pad_edge=False)
        for info in self.all():
            nbytes = sum(file.nbytes for file in info.files)
            states = (
                ("committed: a resume starts here", record is not None and record.folder == info.folder),
                ("kept", is_kept(self.folder, info.folder)),
                ("in use", is_pinned(self.folder, info.folder)),
            )
            state = ", ".join(text for text, applies in states if applies)
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
