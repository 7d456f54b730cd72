"""Starts a server of the runtime's tests."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mora_runtime import RunDirectory
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.supervisor import Supervisor

HERE = Path(__file__).parent
Starter = Callable[..., RoleProcess]


def starter(run: RunDirectory, supervisor: Supervisor) -> Starter:
    def start(role: str, *, wait: bool = True, python: str = sys.executable, **changes: Any) -> RoleProcess:
        settings = {
            "role": role,
            "name": role.partition(".")[0],
            "run_dir": str(run.path),
            "environment": "control",
            "lock_hash": "0123456789abcdef",
            "agents": {"echo": {"kind": "echo", "options": changes.pop("options", {})}},
            "arena_budget_nbytes": 64 << 20,
            **changes,
        }
        path = run.role_folder(role) / "settings.json"
        path.write_text(json.dumps(settings))
        command = [python, str(HERE / "echo_server.py"), "--settings", str(path)]
        child = supervisor.start(
            role, command, variables={"OMP_NUM_THREADS": "1"}, output=run.logs / f"{role}.out", folder=HERE
        )
        if wait:
            supervisor.wait_ready([child], deadline_s=60)
        return child

    return start
