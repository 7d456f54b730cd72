"""Commands of a user id without a name and without a home directory, from a checkout that cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .mora_process import ROOT

pytestmark = pytest.mark.timeout(300)
TOYS = str(ROOT / "tests" / "toy_agents" / "pair.yaml")
UID = "20731"  # of no account
# A namespace in which the checkout is mounted read-only; in it another one, in which this user has another number.
READ_ONLY = f"mount --rbind {ROOT} {ROOT} && mount -o remount,bind,ro {ROOT} && cd {ROOT} && exec "
AS_ROOT = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
AS_NOBODY = ("unshare", "--user", f"--map-user={UID}", f"--map-group={UID}", "env", "-i", f"PATH={os.environ['PATH']}")


def call(temporary: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command with no variables but PATH and TMPDIR."""
    inner = " ".join(f"'{word}'" for word in (*AS_NOBODY, f"TMPDIR={temporary}", *words))
    command = [*AS_ROOT, READ_ONLY + inner]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, stdin=subprocess.DEVNULL)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("needs the command unshare")
    found = call(folder, "sh", "-c", "id -u; touch x 2>&1")
    if UID not in found.stdout or "Read-only file system" not in found.stdout:
        pytest.skip(f"this machine gives users no namespaces: {found.stdout} {found.stderr}".strip())
    if "KeyError" not in call(folder, "python3", "-c", f"import pwd; pwd.getpwuid({UID})").stderr:
        pytest.skip(f"user id {UID} has an account here")
    return folder


def test_a_user_id_without_an_account_trains_and_generates_from_a_read_only_checkout(
    temporary: Path, tmp_path: Path
) -> None:
    run, output = tmp_path / "run", tmp_path / "out.mp4"
    trained = call(temporary, "./mora", "train", TOYS, "--run", str(run), "--set", "training.num_steps=2")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "finished 2 steps" in trained.stdout
    made = call(temporary, "./mora", "generate", "text-to-video", "--config", TOYS, "--prompt", "a", "-o", str(output))
    assert made.returncode == 0, made.stdout + made.stderr
    assert output.stat().st_size > 0
    told = call(temporary, "./mora", "doctor", str(run)).stdout
    assert "state: finished" in told
    assert "files match their manifest" in told
    assert "train: finished" in call(temporary, "./mora", "status", str(run)).stdout
    assert [path.name for path in temporary.iterdir()] == [f"mora-home-{UID}"], "nothing else is left"
    assert not list(tmp_path.rglob("~"))


def test_a_new_run_in_a_read_only_checkout_is_refused_with_the_option_that_helps(temporary: Path) -> None:
    refused = call(temporary, "./mora", "train", TOYS)
    assert refused.returncode == 1
    assert "cannot be made (Read-only file system); name one that you may write to with --run" in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr
