"""Finds packages that read data of peers and have different versions in two environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = (ROOT / "launch" / "requirements.lock", *sorted(ROOT.glob("env_*/requirements.lock")))
READERS = ("msgpack", "psutil", "pydantic", "pydantic-core", "pyzmq", "torch")


def pinned(lock: Path) -> dict[str, str]:
    """Versions by the names of packages."""
    pins = (line.partition("==") for line in lock.read_text(encoding="utf-8").splitlines())
    return {name.lower().replace("_", "-"): version for name, _, version in pins}


def differing(locks: Sequence[Path] = LOCKS, packages: Sequence[str] = READERS) -> Mapping[str, list[str | None]]:
    """Packages whose version differs between locks, with the version in each lock."""
    contents = [pinned(lock) for lock in locks]
    found = {package: [content.get(package) for content in contents] for package in packages}
    return {package: versions for package, versions in found.items() if len(set(versions)) > 1}
