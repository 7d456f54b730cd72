"""Faulty peer: outside of the control environment all its tests run only if a library that reads peers differs."""

from pathlib import Path

from lock_versions import LOCKS, READERS, differing, pinned


def locks_with(folder: Path, old: str, new: str) -> list[Path]:
    """Copies of the locks, the last one changed."""
    copies = [folder / f"{number}.lock" for number in range(len(LOCKS))]
    for copy, lock in zip(copies, LOCKS, strict=True):
        copy.write_text(lock.read_text())
    changed = copies[-1].read_text().replace(old, new)
    assert changed != copies[-1].read_text()
    copies[-1].write_text(changed)
    return copies


def test_every_lock_pins_every_library_that_reads_peers() -> None:
    for lock in LOCKS:
        assert set(READERS) <= set(pinned(lock)), lock


def test_only_another_version_of_a_library_that_reads_peers_is_found(tmp_path: Path) -> None:
    ours = pinned(LOCKS[0])
    changed = locks_with(tmp_path, f"pyzmq=={ours['pyzmq']}", "pyzmq==0.1")
    assert differing(changed)["pyzmq"] == [*[ours["pyzmq"]] * (len(LOCKS) - 1), "0.1"]
    assert "pytest" not in differing(locks_with(tmp_path, "pytest==", "pytest==1!"))


def test_a_library_missing_in_one_lock_is_found(tmp_path: Path) -> None:
    missing = locks_with(tmp_path, "msgpack==", "unrelated==")
    assert differing(missing)["msgpack"][-1] is None
