"""A checkpoint that is served stays while its training continues and removes old ones."""

import time
from pathlib import Path

import pytest

from tests.integration.training.mora_process import MoraTrain

from .conftest import TOYS, Serving, start, stop

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]
CHANGES = ["samples.enabled=false", "training.checkpoint_every=1", "training.keep_checkpoints=1"]


def train_to(run: Path, num_steps: int, *options: str) -> list[int]:
    """Train to this step; return the steps of the checkpoints that are left."""
    code, said = MoraTrain(run, [*CHANGES, f"training.num_steps={num_steps}"], *options, config=str(TOYS)).finish()
    assert code == 0, said
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-????????"))


def picture(serving: Serving) -> str:
    answer = serving.images(prompt="a red circle", seed=4)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"][0]["b64_json"])


def wait_connected(serving: Serving) -> None:
    deadline = time.monotonic() + 60
    while not all(serving.http.get("/readyz").json()["servers"].values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_served_checkpoint_stays_and_a_server_that_is_started_again_finds_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train_to(run, 2) == [2]
    serving = start(tmp_path / "serving", "--checkpoint", f"{run}:2")
    try:
        before = picture(serving)
        assert train_to(run, 5, "--resume") == [2, 5]
        server = serving.server_process("image.0")
        server.kill()
        server.wait(60)
        while serving.http.get("/readyz").json()["servers"]["image.0"]:
            time.sleep(0.05)
        wait_connected(serving)
        assert picture(serving) == before
    finally:
        stop(serving)
    assert train_to(run, 6, "--resume") == [6], "it is removed when the server has ended"
