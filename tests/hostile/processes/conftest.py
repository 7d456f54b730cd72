"""Children that write given bytes to their link."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.supervisor import Supervisor

_PROGRAM = """
import os, sys, time
link = int(sys.argv[sys.argv.index("--supervisor-fd") + 1])
def say(data):
    while data:
        data = data[os.write(link, data):]
{body}
while os.read(link, 100) not in (b"", b"stop\\n"):
    pass
"""


@pytest.fixture
def faulty(tmp_path: Path) -> Callable[[Supervisor, str], RoleProcess]:
    """Starts a child that runs some lines of Python, in which `say(bytes)` writes to its link, and then waits."""

    def start(supervisor: Supervisor, body: str, role: str = "image.0") -> RoleProcess:
        program = tmp_path / f"{role}.py"
        program.write_text(_PROGRAM.format(body=body))
        return supervisor.start(
            role,
            [sys.executable, str(program)],
            variables={},
            output=tmp_path / f"{role}.out",
            folder=tmp_path,
        )

    return start
