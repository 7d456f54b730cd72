"""Runs a script as the two ranks of a group."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GIVE_UP_S = 300.0


def answers_of_two_ranks(script: str, group: Path, *arguments: str) -> list[Any]:
    """Run `script RANK GROUP ARGUMENTS` for both ranks at once; return what each printed as JSON in its last line."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(group), *arguments], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    return [json.loads(process.communicate(timeout=GIVE_UP_S)[0].splitlines()[-1]) for process in processes]
