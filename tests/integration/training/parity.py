"""`mora bench parity` as the tests of this folder call it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .mora_process import ROOT


def parity(folder: Path, config: str, changes: Sequence[str] = (), *, num_steps: int = 0) -> dict[str, Any]:
    """Return what the comparison of a configuration with one process found. A failure shows its output."""
    result = folder / "parity.json"
    settings = [word for change in changes for word in ("--set", change)]
    command = [str(ROOT / "mora"), "bench", "parity", "--config", config, "--json", str(result)]
    command += ["--steps", str(num_steps)]
    done = subprocess.run([*command, *settings], cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(result.read_text())
    return found
