"""`mora bench serve`: requests through HTTP, queue and server, compared with a bare loop over the agent in one process.

`python -m benchmarks.serve --bare` is the loop, in the image environment, with the options and threads of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import add_json_option, publish
from benchmarks.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
NUM_REQUESTS = 64
BATCH = 4
NUM_ROUNDS = 5
START_DEADLINE_S = 240.0
SETTLED_WITHIN_S = 5.0


def answer_bare(batch: int) -> None:
    """In the image environment: for each line on standard input, loop over the agent and print pictures per second."""
    import torch
    from mora_env_sd3.agent import Sd3Agent
    from mora_env_sd3.options import Sd3Options

    torch.set_num_threads(1)
    agent = Sd3Agent(Sd3Options(**json.loads(os.environ["MORA_BENCH_OPTIONS"])), torch.device("cpu"))
    prompts = [f"a red circle number {number}" for number in range(NUM_REQUESTS)]
    with torch.no_grad():
        for _ in sys.stdin:
            started_s = time.perf_counter()
            for first in range(0, NUM_REQUESTS, batch):
                agent.text_to_image(prompts[first : first + batch], list(range(first, first + batch)))
            print(NUM_REQUESTS / (time.perf_counter() - started_s), flush=True)


class Bare:
    """The bare loop in a process with the server's environment variables; a context manager."""

    def __init__(self, batch: int, options: dict[str, Any]) -> None:
        from mora_launch.environments.catalog import checkout_environments
        from mora_launch.jobs.servers import child_variables

        variables = {**os.environ, **child_variables(1, "cpu"), "MORA_BENCH_OPTIONS": json.dumps(options)}
        command = [str(checkout_environments()["sd3"].python), "-m", "benchmarks.serve", "--bare", str(batch)]
        self._process = subprocess.Popen(
            command, env=variables, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Bare:
        self.rate()  # loads the models and warms up
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def rate(self) -> float:
        """Pictures per second."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the bare loop has ended; see above")
        return float(line)


class Served:
    """A `mora serve` process; a context manager."""

    def __init__(self, max_batch: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._folder = tempfile.TemporaryDirectory(prefix="mora-bench-")
        changes = [f"serving.max_batch.text_to_image={max_batch}", "serving.max_waiting=400"]
        words = [word for change in changes for word in ("--set", change)]
        run = str(Path(self._folder.name) / "run")
        self.process = subprocess.Popen(
            [str(ROOT / "mora"), "serve", "configs/tiny.yaml", "--port", str(self.port), "--run", run, *words],
            cwd=ROOT, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self) -> Served:
        import httpx

        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.2)
        raise RuntimeError("mora serve did not become ready; run it by hand to see why")

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self._folder.cleanup()

    def usage(self) -> dict[str, tuple[int, int]]:
        """Resident bytes and descriptors of the front and of each server."""
        import psutil

        front = psutil.Process(self.process.pid)
        found = {"front": (int(front.memory_info().rss), front.num_fds())}
        for child in front.children(recursive=True):
            role = next((Path(word).parent.name for word in child.cmdline() if "/roles/" in word), None)
            if role is not None:
                found[role] = (int(child.memory_info().rss), child.num_fds())
        return found


async def load(port: int, num_requests: int, at_once: int, steps: int | None = None) -> tuple[float, list[float], int]:
    """(requests per second, seconds of each, failed requests), sent as fast as `at_once` connections allow."""
    import httpx

    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300, limits=limits) as client:
        latencies: list[float] = []
        numbers = iter(range(num_requests))
        lost = 0

        async def one_client() -> None:
            nonlocal lost
            for number in numbers:
                body = {"prompt": f"a red circle number {number % 200}", "seed": number, "num_inference_steps": steps}
                started_s = time.perf_counter()
                answer = await client.post("/v1/images/generations", json=body)
                latencies.append(time.perf_counter() - started_s)
                good = answer.status_code == 200 and answer.json()["data"][0]["seed"] == number
                lost += not good

        await client.get("/healthz")
        started_s = time.perf_counter()
        await asyncio.gather(*(one_client() for _ in range(at_once)))
        return num_requests / (time.perf_counter() - started_s), latencies, lost


@dataclass
class Rounds:
    """Figures of one batch size; served and bare alternate, because the speed of the machine varies."""

    served: list[float]
    bare: list[float]
    latencies: list[float]
    num_lost: int = 0

    @property
    def ratio(self) -> float:
        """Median of served / bare over the rounds."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.served, self.bare, strict=True))


def take_rounds(served: Served, batch: int, options: dict[str, Any]) -> Rounds:
    """Run all rounds of a batch size, after one that warms up both."""
    found = Rounds([], [], [])
    asyncio.run(load(served.port, NUM_REQUESTS, NUM_REQUESTS))
    with Bare(batch, options) as bare:
        for _ in range(NUM_ROUNDS):
            found.bare.append(bare.rate())
            rate, latencies, lost = asyncio.run(load(served.port, NUM_REQUESTS, NUM_REQUESTS))
            found.served.append(rate)
            found.latencies += latencies
            found.num_lost += lost
    return found


@dataclass
class Unloaded:
    """Seconds of requests that one client sends one after the other, and of the bare call of one picture."""

    served_s: list[float]
    bare_s: list[float]

    @property
    def added_ms(self) -> float:
        """What the median request takes longer than the median bare call."""
        return (statistics.median(self.served_s) - statistics.median(self.bare_s)) * 1000


def take_unloaded(served: Served, options: dict[str, Any]) -> Unloaded:
    """Take turns of the bare loop and of one client."""
    found = Unloaded([], [])
    with Bare(1, options) as bare:
        for _ in range(NUM_ROUNDS):
            found.bare_s.append(1 / bare.rate())
            _, latencies, lost = asyncio.run(load(served.port, NUM_REQUESTS, 1))
            if lost:
                raise RuntimeError(f"{lost} requests of one client failed; see the log of the server")
            found.served_s += latencies
    return found


def measure(num_soak: int) -> dict[str, Any]:
    """All figures."""
    import yaml

    config = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text(encoding="utf-8"))
    options = config["agents"]["image"]["options"]
    result: dict[str, Any] = {}
    with Served(1) as served:
        single = take_rounds(served, 1, options)
    with Served(BATCH) as served:
        batched = take_rounds(served, BATCH, options)
        unloaded = take_unloaded(served, options)
        _, _, result["num_lost_of_200_clients"] = asyncio.run(load(served.port, 200, 200, 1))
        if num_soak:
            result["soak"] = _soak(served, num_soak)
    cuts = statistics.quantiles(batched.latencies, n=100)
    return result | {
        "throughput_vs_bare": batched.ratio,
        "throughput_vs_bare_alone": single.ratio,
        "unloaded_p50_added_ms": unloaded.added_ms,
        "p50_ms": cuts[49] * 1000,
        "p99_ms": cuts[98] * 1000,
        "batch_gain": statistics.median(batched.served) / statistics.median(single.served),
        "bare_batch_gain": statistics.median(batched.bare) / statistics.median(single.bare),
        "images_per_s": batched.served,
        "bare_images_per_s": batched.bare,
        "batch": BATCH,
        "num_requests": NUM_REQUESTS,
        "num_lost": single.num_lost + batched.num_lost,
        "machine": describe_machine(),
    }


def _soak(served: Served, num_requests: int) -> dict[str, Any]:
    """Resident memory and descriptors before and after; the first fifth fills pools and caches and does not count."""
    asyncio.run(load(served.port, num_requests // 5, 8, 1))
    before = served.usage()
    rate, _, lost = asyncio.run(load(served.port, num_requests - num_requests // 5, 8, 1))
    deadline = time.monotonic() + SETTLED_WITHIN_S
    # the front closes its end of the connections a moment after the client
    while (after := served.usage())["front"][1] > before["front"][1] and time.monotonic() < deadline:
        time.sleep(0.1)
    return {
        "num_requests": num_requests,
        "num_lost": lost,
        "requests_per_s": rate,
        "rss_bytes_per_request": {
            role: (after[role][0] - before[role][0]) / (num_requests - num_requests // 5) for role in after
        },
        "descriptors": {role: [before[role][1], after[role][1]] for role in after},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="mora bench serve", description=__doc__)
    add_json_option(parser)
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="then send N small requests, for example 5000")
    parser.add_argument("--bare", type=int, metavar="BATCH", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        answer_bare(arguments.bare)
        return
    publish(measure(arguments.soak), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
