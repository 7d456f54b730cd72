"""200 clients at once, many of which leave early: none of the others loses anything, and nothing stays behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest

from .conftest import DEADLINE_S, UNBOUNDED, Serving, until

pytestmark = pytest.mark.timeout(300)
NUM_CLIENTS = 200
SEED = 21
LEAVES_WITHIN_S = 2.0
SLACK_NBYTES = 64 << 20  # what allocators may keep


@dataclass
class Tally:
    """What the clients did and were given."""

    outcomes: Counter[str] = field(default_factory=Counter)
    kept: list[str] = field(default_factory=list)  # ids of the videos that their clients waited for
    deleted: list[str] = field(default_factory=list)
    num_asked: int = 0  # pictures
    num_given: int = 0


class Client:
    """One client; a request that it leaves has a connection of its own, which is closed then."""

    def __init__(self, http: httpx.AsyncClient, chance: random.Random, tally: Tally) -> None:
        self._http = http
        self._chance = chance
        self._tally = tally

    async def run(self) -> None:
        """Ask for one thing, and leave early half of the time: delete the video, or close the connection."""
        ask = self._chance.choice([self._pictures, self._stream, self._video, self._video_now])
        leaves_after_s = self._chance.random() * LEAVES_WITHIN_S if self._chance.random() < 0.5 else None
        if ask == self._video:
            await self._video(leaves_after_s)
            has_left = leaves_after_s is not None
        else:
            has_left = await self._leaves(ask, leaves_after_s)
        self._tally.outcomes[f"{ask.__name__} {'left' if has_left else 'done'}"] += 1

    async def _leaves(self, ask: Callable[[], Coroutine[Any, Any, None]], after_s: float | None) -> bool:
        try:
            await asyncio.wait_for(ask(), after_s)
        except TimeoutError:
            return True
        return False

    def _body(self, most_steps: int) -> dict[str, Any]:
        steps = self._chance.randint(1, most_steps)
        return {"prompt": "a cat", "num_inference_steps": steps, "seed": self._chance.randrange(1000)}

    async def _pictures(self) -> None:
        count = self._chance.randint(1, 4)
        self._tally.num_asked += count
        answer = await self._http.post("/images/generations", json=self._body(300) | {"n": count})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["data"]) == count
        self._tally.num_given += count

    async def _stream(self) -> None:
        self._tally.num_asked += 1
        body = self._body(300) | {"stream": True}
        async with self._http.stream("POST", "/images/generations", json=body) as answer:
            assert answer.status_code == 200
            lines = [line async for line in answer.aiter_lines()]
        assert lines.count("event: image_generation.completed") == 1
        self._tally.num_given += 1

    async def _video(self, deletes_after_s: float | None) -> None:
        answer = await self._http.post("/videos", json=self._body(100))
        assert answer.status_code == 200, answer.text
        identifier = answer.json()["id"]
        if deletes_after_s is not None:
            await asyncio.sleep(deletes_after_s)
            assert (await self._http.delete(f"/videos/{identifier}")).status_code == 200
            self._tally.deleted.append(identifier)
            return
        self._tally.kept.append(identifier)
        while (job := (await self._http.get(f"/videos/{identifier}")).json())["status"] != "completed":
            assert job["status"] in ("queued", "in_progress"), job
            await asyncio.sleep(0.1)
        assert (await self._http.get(f"/videos/{identifier}/content")).content[4:8] == b"ftyp"

    async def _video_now(self) -> None:
        answer = await self._http.post("/videos/sync", json=self._body(100))
        assert answer.status_code == 200, answer.text
        assert answer.content[4:8] == b"ftyp"
        self._tally.kept.append(answer.headers["x-video-id"])


def visited(serving: Serving, num_clients: int, seed: int) -> Tally:
    """Let clients come at once."""
    tally = Tally()
    chances = [random.Random(f"{seed} {number}") for number in range(num_clients)]

    async def all_clients() -> None:
        async with httpx.AsyncClient(base_url=serving.url, timeout=DEADLINE_S, limits=UNBOUNDED) as http:
            await asyncio.gather(*(Client(http, chance, tally).run() for chance in chances))

    asyncio.run(all_clients())
    return tally


def listed(serving: Serving) -> list[dict[str, Any]]:
    """All videos, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        after = {"after": found[-1]["id"]} if found else {}
        page = serving.http.get("/v1/videos", params={"limit": 50, **after}).json()
        found += page["data"]
        if not page["has_more"]:
            return found


def wait_idle(serving: Serving) -> None:
    names = ("mora_requests_under_way", "mora_queue_length")
    until(lambda: all(serving.metric(name) == 0 for name in names), "all requests have ended")
    until(
        lambda: all(job["status"] in ("completed", "failed") for job in listed(serving)),
        "all videos have ended",
    )


def processes(serving: Serving) -> list[psutil.Process]:
    front = psutil.Process(serving.process.pid)
    return [front, *front.children(recursive=True)]


def num_files(serving: Serving) -> int:
    return sum(each.num_fds() for each in processes(serving))


def memory_nbytes(serving: Serving) -> int:
    return sum(each.memory_info().rss for each in processes(serving))


def busy_share(serving: Serving) -> float:
    """Cores that the servers use over half a second."""
    before = [each.cpu_times() for each in processes(serving)]
    time.sleep(0.5)  # the interval of the measurement
    after = [each.cpu_times() for each in processes(serving)]
    return sum(b.user + b.system - a.user - a.system for a, b in zip(before, after, strict=True)) / 0.5


def test_no_request_is_lost_or_made_twice_and_nothing_stays_behind(serving: Serving) -> None:
    visited(serving, NUM_CLIENTS // 2, SEED + 1)  # warms up: threads, shared memory, allocators
    wait_idle(serving)
    files, nbytes = num_files(serving), memory_nbytes(serving)
    before = {job["id"] for job in listed(serving)}
    names = ("mora_batch_size_sum", "mora_runs_again_total")
    runs, again = (serving.metric(name) for name in names)

    tally = visited(serving, NUM_CLIENTS, SEED)
    assert sum(tally.outcomes.values()) == NUM_CLIENTS
    assert len(tally.outcomes) == 8, f"of each kind some stay and some leave: {tally.outcomes}"
    wait_idle(serving)

    jobs = listed(serving)
    assert len(jobs) == len({job["id"] for job in jobs}), "each is listed once"
    new = {job["id"]: job["status"] for job in jobs if job["id"] not in before}
    assert len(tally.kept) == len(set(tally.kept))
    assert set(tally.kept) <= set(new), "no video is lost that its client waited for"
    assert not set(tally.deleted) & set(new)
    assert set(new.values()) == {"completed"}, "what clients have left is gone, unless it was done before"
    assert len(new) <= len(tally.kept) + tally.outcomes["_video_now left"]
    made = serving.metric("mora_batch_size_sum") - runs
    num_videos = len(tally.kept) + len(tally.deleted) + tally.outcomes["_video_now left"]
    assert tally.num_given + 2 * len(tally.kept) <= made <= tally.num_asked + 2 * num_videos, "each at most once"
    assert serving.metric("mora_runs_again_total") == again

    until(lambda: busy_share(serving) < 0.3, "the processors are free")
    until(lambda: num_files(serving) <= files + 2, "all descriptors are closed")
    until(lambda: memory_nbytes(serving) <= nbytes + SLACK_NBYTES, "memory is given back")
