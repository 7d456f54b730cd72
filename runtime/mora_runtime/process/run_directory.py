"""The run directory: all files of one job, private to its user, locked by its launcher.

Layout: `config.json`, `roles/<role>/settings.json`, `logs/`, `sockets/`, `keys/`, `checkpoints/`, `samples/`. The lock
is taken before any socket is bound, because a second bind on an ipc path silently takes over the first one's traffic.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from pathlib import Path

from mora_runtime.errors import ConfigurationError, RunLocked
from mora_runtime.files.shown_text import shown_line
from mora_runtime.limits import MAX_SOCKET_PATH_NBYTES

_FOLDERS = ("roles", "logs", "keys", "checkpoints", "samples")
_SOCKETS_FILE = "sockets.path"
_LONGEST_SOCKET_NAME = "/coordinator.999.doorbell.sock"


class RunDirectory:
    """Paths of a run. The launcher calls `create`, which can take the lock; roles call `open`."""

    def __init__(self, path: Path, sockets: Path, lock: int | None) -> None:
        self.path = path
        self.sockets = sockets
        self._lock = lock

    @classmethod
    def create(cls, path: Path, *, lock: bool = False) -> RunDirectory:
        """Make or reuse a run directory, mode 0700, and remove old sockets in it.

        Raises:
            RunLocked: another launcher is using it; its process id is in the text.
            ConfigurationError: the path is a file, a link, another user's, or contains links, pipes or devices.
        """
        path = Path(path).absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            _check_owner(path)
            _check_contents(path)
            path.chmod(0o700)
        except FileExistsError:
            raise ConfigurationError(f"run directory {path}: is not a directory; choose another --run") from None
        except OSError as error:  # of a file system that is read-only, or a folder of another user
            raise ConfigurationError(
                f"run directory {path}: cannot be created or written ({error.strerror}); choose another --run"
            ) from None
        handle = _take_lock(path) if lock else None
        for name in _FOLDERS:
            (path / name).mkdir(exist_ok=True)
        (path / "keys").chmod(0o700)
        return cls(path, _make_sockets(path), handle)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open a run directory that a launcher has made.

        Raises:
            ConfigurationError: it does not exist, belongs to another user, or is open to others.
        """
        path = Path(path).absolute()
        if not path.is_dir():
            raise ConfigurationError(f"run directory {path}: does not exist; the launcher creates it")
        _check_owner(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError(f"run directory {path}: is open to other users; expected mode 0700")
        try:
            sockets = Path((path / _SOCKETS_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigurationError(f"run directory {path}: was not created by mora's launcher") from None
        return cls(path, sockets, None)

    @property
    def logs(self) -> Path:
        """Folder of logs: for each role one JSON-lines file and one file of plain output."""
        return self.path / "logs"

    @property
    def keys(self) -> Path:
        """Folder of the run's keys, whose files have mode 0600."""
        return self.path / "keys"

    @property
    def checkpoints(self) -> Path:
        """Folder of the committed checkpoints and their record."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Folder of the videos generated before and after training."""
        return self.path / "samples"

    def role_folder(self, role: str) -> Path:
        """Private folder of a role, made if absent."""
        folder = self.path / "roles" / role
        folder.mkdir(exist_ok=True)
        return folder

    def socket(self, role: str, kind: str) -> Path:
        """Path of one of a role's sockets: `calls`, `control` or `doorbell`."""
        return self.sockets / f"{role}.{kind}.sock"

    def close(self) -> None:
        """Remove the sockets and release the lock (launcher only)."""
        if self._lock is None:
            return
        for path in self.sockets.glob("*.sock"):
            path.unlink(missing_ok=True)
        if self.sockets.parent != self.path:
            self.sockets.rmdir()
        os.close(self._lock)
        self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lock_holder(path: Path) -> int | None:
    """Process id of the launcher that is using a run; None if there is none."""
    try:
        handle = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(handle, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(handle)
    return None


def _check_owner(path: Path) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"run directory {path}: is a symbolic link; name the directory itself")
    if status.st_uid != os.getuid():
        raise ConfigurationError(f"run directory {path}: belongs to user id {status.st_uid}; choose another --run")


def _check_contents(path: Path) -> None:
    """Refuse a run, perhaps an untrusted one, in which a link would redirect writes or deletions elsewhere."""
    waiting = [path]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    if entry.name != "sockets":  # its sockets are removed in any case
                        waiting.append(Path(entry.path))
                elif not (stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
                    raise ConfigurationError(
                        f"run directory {path}: contains `{shown_line(entry.path, 200)}`, a link, pipe or device, "
                        "which mora never creates; remove it, or choose another --run"
                    )


def _take_lock(path: Path) -> int:
    handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise RunLocked(
            f"run directory {path}: another mora (process {holder}) is using it; wait for it, or choose another --run"
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _elsewhere(path: Path) -> Path | None:
    """The temporary socket folder that an earlier launcher of this run left because it was killed."""
    try:
        folder = Path((path / _SOCKETS_FILE).read_text(encoding="utf-8"))
        status = folder.lstat()
    except OSError:
        return None
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) == 0o700
    return folder if is_ours and folder.parent != path else None


def _is_short(sockets: Path) -> bool:
    return len(os.fsencode(f"{sockets}{_LONGEST_SOCKET_NAME}")) <= MAX_SOCKET_PATH_NBYTES


def _temporary(path: Path) -> Path:
    """Make a folder for sockets in the folder for temporary files, or in /tmp if that has a long name too."""
    try:
        folders = [folder for folder in (tempfile.gettempdir(), "/tmp") if _is_short(Path(folder) / "mora-________")]
        return Path(tempfile.mkdtemp(prefix="mora-", dir=folders[0]))
    except (IndexError, OSError):
        raise ConfigurationError(
            f"run directory {path}: its path is too long for sockets, and no folder for temporary files is short and "
            "can be written; choose a shorter --run, or a shorter TMPDIR"
        ) from None


def _make_sockets(path: Path) -> Path:
    """Make the folder for sockets: inside the run, or a private temporary one if the run's path is too long."""
    sockets = path / "sockets"
    if not _is_short(sockets):
        sockets = _elsewhere(path) or _temporary(path)
    sockets.mkdir(mode=0o700, exist_ok=True)
    for leftover in sockets.glob("*.sock"):
        if leftover.is_dir() and not leftover.is_symlink():
            leftover.rmdir()
        else:
            leftover.unlink()
    (path / _SOCKETS_FILE).write_text(str(sockets), encoding="utf-8")
    return sockets
