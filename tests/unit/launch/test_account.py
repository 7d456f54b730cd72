"""A user id without a name or a home directory gets both, and another user's folder is never taken for its home."""

import getpass
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from mora_launch.cli.account import complete_account


@pytest.fixture
def without_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without an entry in passwd and without variables; returns the folder for temporary files."""

    def no_entry(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_user_without_an_account_gets_a_private_home_and_a_name(without_account: Path) -> None:
    complete_account()
    home = Path(os.environ["HOME"])
    assert home == without_account / f"mora-home-{os.getuid()}"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert getpass.getuser() == f"uid{os.getuid()}"
    told = [sys.executable, "-c", "import getpass, os; print(os.path.expanduser('~'), getpass.getuser())"]
    done = subprocess.run(told, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(home), f"uid{os.getuid()}"]
    before = dict(os.environ)
    complete_account()
    assert dict(os.environ) == before


def test_a_link_a_file_or_an_open_folder_of_that_name_is_not_used(
    without_account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = without_account / f"mora-home-{os.getuid()}"
    elsewhere = without_account / "elsewhere"
    elsewhere.mkdir()
    for make in (lambda: taken.symlink_to(elsewhere), taken.touch, lambda: taken.mkdir(mode=0o755)):
        make()
        complete_account()
        home = Path(os.environ["HOME"])
        assert home not in (taken, elsewhere)
        assert home.parent == without_account
        monkeypatch.delenv("HOME")
        taken.rmdir() if taken.is_dir() and not taken.is_symlink() else taken.unlink()


def test_a_user_with_an_account_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("USER", "ada")
    before = dict(os.environ)
    complete_account()
    assert dict(os.environ) == before
