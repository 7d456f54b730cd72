"""One real `mora serve` of toy agents for all attackers of this folder, and an honest client at the same time.

The attackers are those of SECURITY.md's threat table: a remote client with and without the token, a web site in the
user's browser, another local user. Requests of other users go through a forwarder with another user id.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hostile_serving import PATIENCE_S, SECRET, Honest, Served, is_ready, until

from tests.integration.runtime.slack import slack

ROOT = Path(__file__).resolve().parents[3]
TOYS = ROOT / "tests" / "toy_agents" / "pair.yaml"
OTHER_UID = 1042
START_DEADLINE_S = 240.0
BOUNDS = ("max_review_nbytes=18000000", "max_kept_reviews=5", "max_reviews=8")
_FORWARDER = """
import asyncio, os, sys
async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
async def forward(reader, writer):
    theirs_reader, theirs_writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    await asyncio.gather(pipe(reader, theirs_writer), pipe(theirs_reader, writer))
async def main():
    uid = int(sys.argv[2])
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)  # sockets that are made from now on are this user's
    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hostile-http")
    secret = folder / "secret.txt"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [str(ROOT / "mora"), "serve", str(TOYS), "--port", str(port), "--run", str(folder / "run")]
    bounds = [f"--set=serving.{bound}" for bound in BOUNDS]
    environment = {**os.environ, "MORA_TEST_API_KEY": SECRET}
    with open(folder / "serve.log", "wb") as log:
        process = subprocess.Popen(
            [*command, *bounds], cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
    started = Served(process, folder / "run", port, client, secret)
    try:
        until(lambda: is_ready(started), "the server is ready", START_DEADLINE_S)
        yield started
        assert process.poll() is None, "the server has survived every test"
        assert "Traceback" not in (folder / "serve.log").read_text()
    finally:
        client.close()
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def served_in_s(client: httpx.Client) -> float:
    """Seconds that an honest client takes."""
    started_s = time.monotonic()
    client.get("/healthz").raise_for_status()
    client.post("/v1/images/generations", json={"prompt": "an honest picture"}).raise_for_status()
    return time.monotonic() - started_s


@pytest.fixture
def honest(served: Served) -> Iterator[Honest]:
    """A client that continuously asks for health and a picture; the test fails if it is not served."""
    met, ended = Honest(patience_s=max(PATIENCE_S, 10 * served_in_s(served.http))), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=served.url, timeout=met.patience_s) as client:
            while not ended.wait(0.05):
                started_s = time.monotonic()
                client.timeout = httpx.Timeout(met.patience_s * slack())
                try:
                    served_in_s(client)
                except httpx.HTTPError as error:
                    met.faults.append(repr(error))
                met.worst_s = max(met.worst_s, time.monotonic() - started_s)
                met.num_answers += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield met
        until(lambda: met.num_answers > 0 or bool(met.faults), "the honest client has asked")
    finally:
        ended.set()
        thread.join(10 * met.patience_s)
    assert not met.faults, f"the honest client was not served: {met.faults[0]}"


@pytest.fixture(scope="session")
def other_user(served: Served) -> Iterator[httpx.Client]:
    """A client whose connections belong to another local user."""
    if os.getuid() != 0:
        pytest.skip("only root can ask as another user")
    process = subprocess.Popen(
        [sys.executable, "-c", _FORWARDER, str(served.port), str(OTHER_UID)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    with httpx.Client(base_url=f"http://127.0.0.1:{int(line)}", timeout=60) as client:
        yield client
    process.kill()
    process.wait(10)
    process.stdout.close()
