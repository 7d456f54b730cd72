"""Starts the server that tests attack, and sees that it has survived them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostile_peer import Target
from mora_runtime import RunDirectory
from mora_runtime.wire.sockets import make_keys


@contextmanager
def attacked_server(
    folder: Path, script: Path, settings: Mapping[str, Any], variables: Mapping[str, str] | None = None
) -> Iterator[Target]:
    """Run `script` as the server `adder.0` of a new run in `folder`, with these settings and variables besides."""
    with RunDirectory.create(folder, lock=True) as run:
        make_keys(run)
        path = run.role_folder("adder.0") / "settings.json"
        path.write_text(json.dumps({"role": "adder.0", "name": "adder", "run_dir": str(run.path), **settings}))
        ours, theirs = socket.socketpair()
        command = [sys.executable, str(script), "--settings", str(path), "--supervisor-fd", str(theirs.fileno())]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})}
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        ours.settimeout(120)
        with ours.makefile() as lines:
            assert next(event for line in lines if (event := json.loads(line)["event"]) != "beat") == "ready"
        yield Target(run, process)
        assert process.poll() is None, "the server has survived every test"
        ours.send(b"stop\n")
        assert process.wait(10) == 0
        ours.close()
