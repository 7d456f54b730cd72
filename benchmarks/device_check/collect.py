"""Collects what a machine without a network lacks: `python3 -m benchmarks.device_check.collect FOLDER`.

It downloads the wheels of `wheels.txt` for Linux on x86-64, builds those that are published as source only, and prints
the command that runs the check on the other machine. It needs a Python with pip.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.device_check.source_folders import ROOT

LIST = Path(__file__).with_name("wheels.txt")
LIMIT_NBYTES = 64 << 20  # of the wheels and the repository together
BUILT = ("deepspeed",)  # published as source only; it compiles nothing with DS_BUILD_OPS=0
# pip takes each platform literally, so that a wheel for an older system must be named too
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_26_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_SITE = "/tmp/site"
_PIP_DEADLINE_S = 900


class CannotCollect(Exception):
    """Why the wheels are not there, and what to do."""


def main() -> int:
    """Collect, and print what to run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.device_check.collect", description=__doc__)
    parser.add_argument("folder", type=Path, help="for the wheels; it must be empty or absent")
    parser.add_argument("--python-version", default="3.12", help="of the other machine; default: 3.12")
    arguments = parser.parse_args()
    try:
        collect(arguments.folder, arguments.python_version)
        wheels_nbytes, checkout_nbytes = check_size(arguments.folder)
    except CannotCollect as reason:
        print(f"collect: {reason}", file=sys.stderr)
        return 1
    print(f"{wheels_nbytes / 1e6:.1f} MB of wheels, {checkout_nbytes / 1e6:.1f} MB of the repository")
    print("on the other machine, in the repository:")
    print(f"  {command_there(arguments.folder)}")
    return 0


def collect(folder: Path, python_version: str) -> None:
    """Put the wheels into a folder.

    Raises:
        CannotCollect: the folder has files already, or pip failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise CannotCollect(
            f"{folder}: expected an empty folder, because two versions of a package cannot be installed"
        )
    wanted = listed()
    platforms = [word for each in _PLATFORMS for word in ("--platform", each)]
    downloaded = [each for each in wanted if each.partition("==")[0] not in BUILT]
    _pip(
        "download", "--only-binary=:all:", "--implementation", "cp", "--python-version", python_version, *platforms,
        "--dest", str(folder), *downloaded,
    )  # fmt: skip
    _pip("wheel", "--wheel-dir", str(folder), *(each for each in wanted if each not in downloaded))
    other = [path.name for path in folder.iterdir() if path.suffix != ".whl"]
    if other:
        raise CannotCollect(f"{folder}: expected wheels, pip left {', '.join(sorted(other))}")


def listed() -> list[str]:
    """The lines `name==version` of the list."""
    lines = (line.partition("#")[0].strip() for line in LIST.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def check_size(folder: Path) -> tuple[int, int]:
    """Bytes of the wheels, and of the files of the checkout.

    Raises:
        CannotCollect: together they are more than the limit.
    """
    wheels_nbytes = sum(path.stat().st_size for path in folder.iterdir())
    checkout_nbytes = sum(
        path.lstat().st_size for path in _checkout_files() if not path.is_relative_to(folder.resolve())
    )
    if wheels_nbytes + checkout_nbytes > LIMIT_NBYTES:
        raise CannotCollect(
            f"expected at most {LIMIT_NBYTES} bytes of wheels and repository together, got {wheels_nbytes} and "
            f"{checkout_nbytes}; take packages out of {LIST.name} that the other machine has"
        )
    return wheels_nbytes, checkout_nbytes


def command_there(folder: Path) -> str:
    """What to run on the other machine, in the repository, with the folder of wheels next to it or in it."""
    install = f"python3 -m pip install -q --no-index --no-deps --target {_SITE} {folder}/*.whl"
    return f"{install} && PYTHONPATH={_SITE} python3 -m benchmarks.device_check --json device_check.json"


def _checkout_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).exists()]


def _pip(*words: str) -> None:
    command: Sequence[str] = [sys.executable, "-m", "pip", *words[:1], "--quiet", "--no-deps", *words[1:]]
    environment = {**os.environ, "DS_BUILD_OPS": "0"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PIP_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotCollect(f"`pip {words[0]}` did not end within {_PIP_DEADLINE_S} s; try again") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CannotCollect(f"`{sys.executable} -m pip {words[0]}` ended with {done.returncode}: {said}")


if __name__ == "__main__":
    sys.exit(main())
