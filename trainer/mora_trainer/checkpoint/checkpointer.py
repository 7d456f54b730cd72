"""Writing and restoring checkpoints; only the one in the commit record is valid (docs/architecture.md, state).

Every role writes its shards under `checkpoints/step-N.tmp/`; rank 0 gathers their hashes in `manifest.json`, renames
the folder and replaces the record `COMMITTED` atomically. So the record names a complete checkpoint, however the job is
killed. Every coordinator rank calls this; servers write their own parts through `OptimizerAgent`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mora_runtime import Client, PendingReply
from mora_runtime.errors import CheckpointError
from mora_runtime.files.durable_files import ShardFile, replace_text, sync, verify, write_text
from mora_runtime.process import faults
from mora_runtime.trace import tracing
from mora_training.optimizer_agent import PARTICIPANT
from mora_training.shards import ShardWriter, copied
from safetensors.torch import load_file

from mora_trainer.checkpoint.commit_record import FORMAT_VERSION, MANIFEST, RECORD, CheckpointInfo
from mora_trainer.checkpoint.pin import remove_unpinned
from mora_trainer.modulation import Modulation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _OpenCheckpoint:
    """A checkpoint that is being written."""

    step: int
    folder: Path  # step-00000012.tmp
    writer: ShardWriter  # of this rank's own files


@contextlib.contextmanager
def _disk_may_refuse(step: int) -> Iterator[None]:
    """Turn a disk error of this rank's own files into the error that the checkpoint is not committed."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written: {error.strerror}; the previous one is kept: free "
            "disk space, then continue with --resume"
        ) from error


def _all_agree(mine: bool) -> bool:
    """True if all ranks pass True (a collective), because no rank may commit alone."""
    says_no = torch.tensor([float(not mine)])
    dist.all_reduce(says_no)
    return bool(says_no.item() == 0)


def _files_of(values: dict[str, Any]) -> list[ShardFile]:
    columns = zip(values["files"], values["nbytes"], values["sha256"], strict=True)
    return [ShardFile(path, nbytes, sha256) for path, nbytes, sha256 in columns]


class Checkpointer:
    """Saves and restores a whole job from the coordinators' side.

    Args:
        checkpoints: `<run>/checkpoints`.
        clients: by agent name.
        modulation: saved as `coordinator/modulation.safetensors` in float32.
    """

    def __init__(
        self,
        checkpoints: Path,
        clients: dict[str, Client],
        modulation: Modulation | None,
        *,
        lock_hashes: dict[str, str],
        keep: int,
        deadline_s: float,
    ) -> None:
        self._checkpoints = checkpoints
        self._clients = clients
        self._modulation = modulation
        self._lock_hashes = lock_hashes
        self._keep = keep
        self._deadline_s = deadline_s
        self._rank = dist.get_rank()
        self._world_size = dist.get_world_size()
        self._open: _OpenCheckpoint | None = None

    def begin(self, step: int) -> None:
        """Begin to write the state after `step` steps (a collective of all ranks); `finish` commits it.

        Training may continue meanwhile: every role has copied its state when this returns.

        Raises:
            MoraError: this checkpoint, or the previous one, which is finished first, could not be written. It is not
                committed; the record still names the checkpoint before it.
        """
        self.finish(wait=True)
        with tracing.span("begin checkpoint", "io"), _disk_may_refuse(step):
            self._begin(step)

    def _begin(self, step: int) -> None:
        temporary = self._checkpoints / f"step-{step:08d}.tmp"
        if self._rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        dist.barrier()
        pending = [self._ask(client, "save", {"folder": temporary.name}) for client in self._clients.values()]
        writer = ShardWriter(temporary, self._modulation_files(temporary))
        for call in pending:
            call.result()
        self._open = _OpenCheckpoint(step, temporary, writer)

    def finish(self, *, wait: bool) -> bool:
        """Commit the checkpoint of `begin` once every role of every rank has written its part (a collective).

        Args:
            wait: False returns at once if a role is still writing.

        Returns:
            True when no checkpoint is open.

        Raises:
            MoraError: a role could not write; nothing is committed.
        """
        if self._open is None:
            return True
        with tracing.span("finish checkpoint", "io"), _disk_may_refuse(self._open.step):
            return self._finish(self._open, wait=wait)

    def _finish(self, open_: _OpenCheckpoint, *, wait: bool) -> bool:
        wait_s = self._deadline_s if wait else 0.0
        pending = [self._ask(client, "saved", {"wait_s": wait_s}) for client in self._clients.values()]
        answers = [call.result().values for call in pending]
        is_done = all(values["done"] for values in answers) and (wait or open_.writer.is_done)
        if not _all_agree(is_done):
            return False
        files = [file for values in answers for file in _files_of(values)] + open_.writer.result(self._deadline_s)
        write_text(open_.folder / f"files-{self._rank:05d}.json", json.dumps([asdict(file) for file in files]))
        dist.barrier()
        if self._rank == 0:
            self._commit(open_.folder, open_.folder.with_suffix(""), open_.step)
        dist.barrier()
        self._open = None
        return True

    def _ask(self, client: Client, method: str, arguments: dict[str, Any]) -> PendingReply:
        return client.submit(PARTICIPANT, method, arguments, deadline_s=self._deadline_s)

    def _modulation_files(self, root: Path) -> dict[Path, dict[str, torch.Tensor] | str]:
        if self._modulation is None:
            return {}
        shard = root / "coordinator" / f"optimizer-{self._rank:05d}-of-{self._world_size:05d}.safetensors"
        files: dict[Path, dict[str, torch.Tensor] | str] = {shard: copied(self._modulation.optimizer.state())}
        if self._rank == 0:
            files[root / "coordinator" / "modulation.safetensors"] = copied(dict(self._modulation.embeddings.items()))
        return files

    def _commit(self, temporary: Path, final: Path, step: int) -> None:
        files: list[dict[str, Any]] = []
        for rank in range(self._world_size):
            listing = temporary / f"files-{rank:05d}.json"
            files += json.loads(listing.read_text(encoding="utf-8"))
            listing.unlink()
        manifest = {
            "format": FORMAT_VERSION,
            "step": step,
            "folder": final.name,
            "num_replicas": self._world_size,
            "lock_hashes": self._lock_hashes,
            "files": files,
        }
        write_text(temporary / MANIFEST, json.dumps(manifest, indent=1))
        for folder in [temporary, *(path for path in temporary.rglob("*") if path.is_dir())]:
            sync(folder)
        shutil.rmtree(final, ignore_errors=True)  # can only be an uncommitted leftover of the same step
        os.rename(temporary, final)
        sync(self._checkpoints)
        faults.reach("renamed")
        replace_text(self._checkpoints / RECORD, json.dumps({"step": step, "folder": final.name}))
        faults.reach("record_replaced")
        self._remove_old(final.name)

    def _remove_old(self, newest: str) -> None:
        folders = sorted(path for path in self._checkpoints.glob("step-????????") if path.is_dir())
        for folder in folders[: -self._keep]:
            if folder.name != newest and not remove_unpinned(self._checkpoints, folder.name):
                log.info("%s is in use or kept, so it stays", folder.name)
        for leftover in self._checkpoints.glob("step-*.tmp"):
            shutil.rmtree(leftover)

    def restore(self, info: CheckpointInfo) -> None:
        """Check the files' hashes of a committed checkpoint, then load it into every role (a collective).

        Raises:
            CheckpointError: a file is missing or changed, or another number of replicas wrote the checkpoint.
        """
        if info.num_replicas != self._world_size:
            raise CheckpointError(
                f"{info.folder} was written by {info.num_replicas} replica(s), this run has {self._world_size}; "
                "optimizer shards fit only the same number"
            )
        root = self._checkpoints / info.folder
        info.check_files(root)
        mine = [file for file in info.files if self._rank == 0 or f"-{self._rank:05d}-of-" in file.path]
        for file in mine:
            verify(file, root)
        pending = [
            client.submit(PARTICIPANT, "load", {"folder": info.folder}, deadline_s=self._deadline_s)
            for client in self._clients.values()
        ]
        for call in pending:
            call.result()
        if self._modulation is not None:
            name = f"optimizer-{self._rank:05d}-of-{self._world_size:05d}.safetensors"
            state: dict[str, torch.Tensor] = load_file(root / "coordinator" / name)
            self._modulation.optimizer.load_state(state)
        dist.barrier()
