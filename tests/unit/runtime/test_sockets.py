"""The keys of a run are made once, even if several of its processes open it at the same moment."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.wire.sockets import make_keys

NUM_PROCESSES = 4


def test_processes_that_open_at_the_same_moment_get_the_same_keys(tmp_path: Path) -> None:
    for number in range(5):
        run = RunDirectory.create(tmp_path / f"run{number}")
        together = threading.Barrier(NUM_PROCESSES)

        def opened(run: RunDirectory = run, together: threading.Barrier = together) -> tuple[bytes, bytes]:
            together.wait(10.0)
            make_keys(run)
            return (run.keys / "server.key_secret").read_bytes(), (run.keys / "clients" / "client.key").read_bytes()

        with ThreadPoolExecutor(NUM_PROCESSES) as pool:
            keys = [each.result() for each in [pool.submit(opened) for _ in range(NUM_PROCESSES)]]
        assert len(set(keys)) == 1
        assert keys[0][0] == (run.keys / "server.key_secret").read_bytes()


def test_keys_are_private_and_complete_after_a_maker_was_killed_in_between(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    (run.keys / "client.key").write_text("half of a ke")
    (run.keys / "client.key").chmod(0o600)
    make_keys(run)
    assert (run.keys / "clients" / "client.key").read_bytes() == (run.keys / "client.key").read_bytes()
    assert all(path.stat().st_mode & 0o077 == 0 for path in run.keys.rglob("*key*"))
