"""Two tokens of one server: many requests of one do not delay the single one of the other."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mora_launch.config.train_config import load_config
from mora_launch.serving.http.app import make_app
from mora_launch.serving.running_servers import RunningServers
from mora_launch.web.access import Access
from starlette.testclient import TestClient

from .conftest import TINY

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
TOKENS = {"ann": "the-token-of-ann-1", "bob": "the-token-of-bob-1"}
NUM_OF_ANN = 40


def test_a_single_request_overtakes_the_waiting_ones_of_another_token(
    servers: RunningServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers.pool.queue, "sends_ahead", True)  # restored for the other tests of these servers
    app = make_app(servers.pool, load_config(TINY, []), tmp_path, Access(TOKENS, None, None))
    with TestClient(app) as http, ThreadPoolExecutor(NUM_OF_ANN) as threads:

        def picture(name: str, seed: int) -> int:
            body = {"prompt": "a red circle", "seed": seed, "num_inference_steps": 20}
            headers = {"authorization": f"Bearer {TOKENS[name]}"}
            return http.post("/v1/images/generations", json=body, headers=headers).status_code

        many = [threads.submit(picture, "ann", seed) for seed in range(NUM_OF_ANN)]
        deadline = time.monotonic() + 120
        while len(servers.pool.queue) < NUM_OF_ANN // 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert picture("bob", 99) == 200
        num_left = sum(not each.done() for each in many)
        assert {each.result(120) for each in many} == {200}
    # before the one: the batch of four that the server worked on, and its own; and as much again, because the answers
    # of what was served before may come late
    assert num_left >= NUM_OF_ANN // 2 - 3 * 4, num_left
