"""The project's targets for its transport, each with the measured value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.ipc.peers import RIVALS
from benchmarks.ipc.plan import MIB

ECHO_LIMITS = {16 * MIB: 1.25, 64 * MIB: 1.08, 256 * MIB: 1.25}  # times one copy and one addition
RESIDENT_LIMITS = {16 * MIB: 1.4, 64 * MIB: 1.2, 256 * MIB: 1.4}  # times one addition
RIVAL_SIZES = (MIB, 64 * MIB, 256 * MIB)
RIVAL_FACTOR = 3.0
MIDDLE_NBYTES, MIDDLE_FACTOR = MIB, 1.2
ZMQ_LIMIT, DOORBELL_LIMIT = 1.25, 0.6  # times a bare ping-pong
REFERENCE_LIMIT = 2.0  # small messages
THROUGHPUT_LIMIT = 0.97  # of the last tenth to the first
MEMORY_LIMIT_NBYTES = (
    4 * MIB
)  # largest growth of resident memory from the end of the first tenth to the end of the last

Entry = dict[str, Any]


def judge(report: Mapping[str, Any]) -> list[Entry]:
    """One entry for each target that this run has measured."""
    sizes = {size["bytes"]: size for size in report["sizes"]}
    entries = [entry for nbytes, size in sizes.items() for entry in _bulk(nbytes, size)]
    small = report["small"]
    if small is not None:
        if MIDDLE_NBYTES in sizes:
            entries.append(_middle(sizes[MIDDLE_NBYTES], small["ours_us"]))
        if "ratio" in small:
            entries += _small(small)
    handed = report["by_reference"]
    title = f"{_mib(handed['bytes'])} handed on by reference, in small messages"
    entries.append(at_most(title, handed["ratio_to_small"], REFERENCE_LIMIT))
    if "soak" in report:
        entries += _soak(report["soak"])
    return entries


def _bulk(nbytes: int, size: Mapping[str, Any]) -> list[Entry]:
    entries = []
    if nbytes in ECHO_LIMITS:
        limit = ECHO_LIMITS[nbytes]
        entries.append(at_most(f"{_mib(nbytes)} echo / floor", size["ratio"], limit))
        resident = f"{_mib(nbytes)} echo, x in a slot / one addition"
        entries.append(at_most(resident, size["resident_ratio"], RESIDENT_LIMITS[nbytes]))
        fresh = f"{_mib(nbytes)} echo, y made outside a slot / (two copies + addition into new memory)"
        entries.append(at_most(fresh, size["fresh_output_ratio"], limit))
    rivals = {name: us for name, us in size["peers_us"].items() if name in RIVALS}
    if nbytes in RIVAL_SIZES and rivals:
        best = min(rivals, key=lambda name: rivals[name])
        title = f"{_mib(nbytes)}: the best rival measured ({best}) / ours"
        entries.append(at_least(title, rivals[best] / size["ours_us"], RIVAL_FACTOR))
    return entries


def _middle(size: Mapping[str, Any], small_us: float) -> Entry:
    limit_us = small_us + MIDDLE_FACTOR * size["floor_us"]
    return at_most(f"{_mib(size['bytes'])} echo, us (small message + 1.2 floor)", size["ours_us"], limit_us)


def _small(small: Mapping[str, Any]) -> list[Entry]:
    through_zmq = small["zmq_path_ratio"]
    doorbell = "small message with a doorbell / bare ZeroMQ ping-pong"
    return [
        at_most("small message through ZeroMQ / bare ZeroMQ ping-pong", through_zmq, ZMQ_LIMIT),
        at_most(doorbell, small["ratio"], DOORBELL_LIMIT),
    ]


def _soak(soak: Mapping[str, Any]) -> list[Entry]:
    throughput = soak["last_to_first_throughput"]
    entries = [at_least("soak: throughput, last tenth / first", throughput, THROUGHPUT_LIMIT)]
    for name in ("caller", "server"):
        title = f"soak: growth of the {name}'s resident memory, bytes"
        entries.append(at_most(title, soak["rss_growth_bytes"][name], MEMORY_LIMIT_NBYTES))
        entries.append(at_most(f"soak: new descriptors of the {name}", soak["descriptor_growth"][name], 0))
    entries.append(at_most("soak: growth of the server's arena, bytes", soak["arena_growth_bytes"], 0))
    return entries


def at_most(target: str, measured: float, limit: float) -> Entry:
    """A target that is met if the measured value is at most `limit`."""
    return {"target": target, "comparison": "<=", "limit": limit, "measured": measured, "met": measured <= limit}


def at_least(target: str, measured: float, limit: float) -> Entry:
    """A target that is met if the measured value is at least `limit`."""
    return {"target": target, "comparison": ">=", "limit": limit, "measured": measured, "met": measured >= limit}


def _mib(nbytes: int) -> str:
    return f"{nbytes / MIB:g} MiB"
