"""The runs of this user that are alive, wherever their directories are, for commands that are given no RUN.

While a launcher runs, a folder of the user contains a file with the path of its run. The run's lock decides whether the
run is alive, so the file of a launcher that was killed is removed by the next look.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mora_runtime.errors import MoraError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.process.run_directory import lock_holder

from mora_launch.limits import MAX_PATH_LENGTH


@contextmanager
def listed(run: Path) -> Iterator[None]:
    """List a run as alive; its launcher has its lock meanwhile."""
    entry = _added(run.absolute())
    try:
        yield
    finally:
        if entry is not None:
            entry.unlink(missing_ok=True)


def live_runs() -> list[Path]:
    """Return the directories of all runs that are alive, in the order of their paths."""
    found = set()
    for folder in _folders():
        with contextlib.suppress(OSError):  # there is no such folder, or it cannot be read
            for entry in folder.iterdir():
                run = _live(entry)
                if run is not None:
                    found.add(run)
    return sorted(found)


def _live(entry: Path) -> Path | None:
    """Return the run of an entry; None if it is not alive. Then the entry is removed."""
    try:
        run = Path(os.fsdecode(read_foreign(entry, MAX_PATH_LENGTH)))
        is_alive = run.is_absolute() and lock_holder(run) is not None
    except (OSError, MoraError, ValueError):
        return None  # another user's run, or a file that is no entry
    if not is_alive:
        entry.unlink(missing_ok=True)
        return None
    return run


def _added(run: Path) -> Path | None:
    """Write the entry into the first folder that can be written; None if there is none, which costs only the list."""
    name = hashlib.sha256(os.fsencode(run)).hexdigest()[:32]
    for folder in _folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_text(folder / name, str(run), synced=False)
        except OSError:
            continue
        return folder / name
    return None


def _folders() -> list[Path]:
    """The folders of entries: of this login, which not every session of the user has, and of the user's home."""
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    bases = [session] if os.path.isdir(session) else []
    return [Path(base) / "mora" / "runs" for base in (*bases, home) if os.path.isabs(base)]
