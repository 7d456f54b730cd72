"""Many messages of mixed size, watched for anything that grows or slows down."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from benchmarks.ipc.contestant import DEADLINE_S, WrongAnswer
from benchmarks.ipc.ours import SERVERS, Echo, OurServers
from benchmarks.ipc.plan import MIB

_NUM_TENTHS = 10
_PERIOD = 1000  # messages; the sizes repeat with this period, so that every tenth of the run does the same work
_SEED = 20240321
_METHODS = ("add_one_in_slot", "add_one")


@dataclass(frozen=True)
class Message:
    """One message of the sequence: its x and the method it calls."""

    x: torch.Tensor
    echo: Echo


def sizes_of_a_period(seed: int = _SEED) -> list[int]:
    """Bytes of each message: one in ten is empty, the others are spread evenly over the magnitudes up to 1 MiB."""
    numbers = random.Random(seed)
    largest = (MIB // 4).bit_length() - 1
    return [0 if numbers.random() < 0.1 else 4 * round(2 ** numbers.uniform(0, largest)) for _ in range(_PERIOD)]


def soak(opened: OurServers, num_messages: int, progress: Callable[[], None]) -> dict[str, Any]:
    """Key `soak` of the report.

    Args:
        num_messages: at least 10,000; rounded down so that every tenth has whole periods.

    Raises:
        WrongAnswer: a checked answer (one in each period) is not x + 1.
    """
    periods = num_messages // (_PERIOD * _NUM_TENTHS)
    if periods < 1:
        raise ValueError(f"a soak needs at least {_PERIOD * _NUM_TENTHS} messages, got {num_messages}")
    messages = _messages(opened)
    processes = {
        "caller": psutil.Process(),
        "server": psutil.Process(opened.servers[SERVERS[0]].process.pid),
    }
    _run(messages, 0)  # warms up, so that every size class has its slots
    tenths = []
    for _ in range(_NUM_TENTHS):
        started_s, started_cpu_s = time.perf_counter(), _cpu_s(processes)
        for number in range(periods):
            _run(messages, number)
            progress()
        elapsed_s = time.perf_counter() - started_s
        cpu_us = (_cpu_s(processes) - started_cpu_s) * 1e6 / (periods * _PERIOD)
        rates = {"messages_per_s": periods * _PERIOD / elapsed_s, "cpu_us_per_message": cpu_us}
        tenths.append({**rates, **_memory(opened, processes)})
    return _summary(periods * _PERIOD * _NUM_TENTHS, tenths)


def _messages(opened: OurServers) -> list[Message]:
    values = torch.arange(MIB // 4, dtype=torch.float32)
    echoes = [Echo(method, opened.client, method) for method in _METHODS]
    sizes = sizes_of_a_period()
    return [Message(values[: nbytes // 4], echoes[place % len(echoes)]) for place, nbytes in enumerate(sizes)]


def _run(messages: Sequence[Message], number: int) -> None:
    """Run one period and compare one of its answers, another one each time."""
    for message in messages:
        message.echo.echo(message.x)
    compared = messages[number * 7919 % _PERIOD]
    y = compared.echo.echo(compared.x)
    if not torch.equal(y, compared.x + 1):
        raise WrongAnswer(f"soak: expected y = x + 1 for {compared.x.nbytes} bytes, got other values")


def _cpu_s(processes: dict[str, psutil.Process]) -> float:
    """Processor time of all processes; other load on the machine affects it less than wall-clock time."""
    times = [process.cpu_times() for process in processes.values()]
    return float(sum(time_s.user + time_s.system for time_s in times))


def _memory(opened: OurServers, processes: dict[str, psutil.Process]) -> dict[str, Any]:
    opened.client.flush()
    measured: dict[str, Any] = {}
    for name, process in processes.items():
        memory = process.memory_info()
        measured[f"{name}_rss_bytes"] = memory.rss
        measured[f"{name}_shared_bytes"] = memory.shared
        measured[f"{name}_num_fds"] = process.num_fds()
    measured["server_arena_bytes"] = opened.client.ping(DEADLINE_S).arena_nbytes
    return measured


def _summary(num_messages: int, tenths: list[dict[str, Any]]) -> dict[str, Any]:
    first, last = tenths[0], tenths[-1]
    return {
        "num_messages": num_messages,
        "size_bytes": {"least": 0, "most": max(sizes_of_a_period()), "seed": _SEED},
        "last_to_first_throughput": last["messages_per_s"] / first["messages_per_s"],
        "last_to_first_cpu": last["cpu_us_per_message"] / first["cpu_us_per_message"],
        "rss_growth_bytes": {
            name: last[f"{name}_rss_bytes"] - first[f"{name}_rss_bytes"] for name in ("caller", "server")
        },
        "descriptor_growth": {
            name: last[f"{name}_num_fds"] - first[f"{name}_num_fds"] for name in ("caller", "server")
        },
        "arena_growth_bytes": last["server_arena_bytes"] - first["server_arena_bytes"],
        "tenths": {key: [tenth[key] for tenth in tenths] for key in first},
    }
