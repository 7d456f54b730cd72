"""Every kind of this environment passes the conformance suite with its tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mora_env_vbench.__main__ import KINDS


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_kind_passes_every_check(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mora_env_vbench", "check", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())["kinds"]
    assert list(found) == list(KINDS)
    assert all(outcomes[-1]["check"] == "errors cross a server" for outcomes in found.values())
