"""The benchmark's JSON: everything that was measured, under stable keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.ipc.measurement import Measurement, RemotePeer
from benchmarks.ipc.peers import FAMILIES, HOW_TO_INSTALL, PING
from benchmarks.ipc.plan import SMALL_NBYTES
from benchmarks.ipc.verdict import judge
from benchmarks.machine import describe_machine

_LOCAL = ("copy", "add", "floor", "fresh_add", "ours", "resident", "fresh_output", "empty_call", "zmq_path")
NOTES = (
    "echo of y = x + 1 between two processes, float32, one torch thread on either side; medians of all timed echoes",
    "the timed span of an echo begins with x ready and ends when y has arrived and is dropped",
    "floor: one copy and one addition into warm memory; add and copy: one of them; fresh_add: x + 1 into new memory",
    "ours: x in ordinary memory, y made in a slot; resident: x in a slot too; fresh_output: y made outside a slot",
    "fresh_output_ratio: against two copies and one fresh_add",
    "small: 1 KiB through a method that returns x + 1; zmq is a bare DEALER/ROUTER ping-pong of one byte",
    "the first echo of every turn is compared with x + 1, whole, and not timed",
    "peers are called from their own processes, which are stopped while others have their turn",
)


def make_report(
    measurements: Sequence[Measurement],
    by_reference: Mapping[str, Any],
    soak: Mapping[str, Any] | None,
    peers: Sequence[RemotePeer],
    problems: Mapping[str, Any],
) -> dict[str, Any]:
    """All keys.

    Args:
        problems: `not_installed`, `left_out`, and `failed` to start.
    """
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "num_rounds": {str(m.plan.nbytes): m.plan.num_rounds for m in measurements},
        "sizes": [_size(measurement) for measurement in measurements],
        "small": next((_small(m) for m in measurements if m.plan.nbytes == SMALL_NBYTES), None),
        "by_reference": dict(by_reference),
        **problems,
        "notes": [*NOTES, *_notes_of(measurements, peers)],
    }
    report["failed"] = [*problems["failed"], *(peer.failure for peer in peers if peer.failure is not None)]
    if soak is not None:
        report["soak"] = dict(soak)
    report["verdict"] = judge(report)
    return report


def _size(measurement: Measurement) -> dict[str, Any]:
    us = {name: measurement.median_us(name) for name in measurement.times_us}
    peers_us = {name: time_us for name, time_us in us.items() if name not in (*_LOCAL, PING)}
    return {
        "bytes": measurement.plan.nbytes,
        "ours_us": us["ours"],
        "floor_us": us["floor"],
        "ratio": us["ours"] / us["floor"],
        "ratio_by_round": _rounded(measurement.ratio_by_round("ours", "floor")),
        "resident_us": us["resident"],
        "add_us": us["add"],
        "resident_ratio": us["resident"] / us["add"],
        "resident_ratio_by_round": _rounded(measurement.ratio_by_round("resident", "add")),
        "copy_us": us["copy"],
        "fresh_add_us": us["fresh_add"],
        "fresh_output_us": us["fresh_output"],
        "fresh_output_ratio": us["fresh_output"] / (2 * us["copy"] + us["fresh_add"]),
        "peers_us": peers_us,
        "num_echoes": {name: sum(map(len, turns)) for name, turns in measurement.times_us.items()},
        "num_turns_checked": measurement.num_checked,
    }


def _small(measurement: Measurement) -> dict[str, Any]:
    ours_us = measurement.median_us("fresh_output")
    found: dict[str, Any] = {
        "bytes": SMALL_NBYTES,
        "ours_us": ours_us,
        "in_slot_us": measurement.median_us("ours"),
        "empty_call_us": measurement.median_us("empty_call"),
        "zmq_path_us": measurement.median_us("zmq_path"),
    }
    if PING in measurement.times_us:
        zmq_us = measurement.median_us(PING)
        found.update(zmq_us=zmq_us, ratio=ours_us / zmq_us, zmq_path_ratio=found["zmq_path_us"] / zmq_us)
        found["ratio_by_round"] = _rounded(measurement.ratio_by_round("fresh_output", PING))
    return found


def _rounded(ratios: Sequence[float]) -> list[float]:
    return [round(ratio, 3) for ratio in ratios]


def _notes_of(measurements: Sequence[Measurement], peers: Sequence[RemotePeer]) -> list[str]:
    notes = [f"{peer.name}: {peer.note}" for peer in peers if peer.note is not None]
    notes += [
        f"{peer.name}: carries at most {peer.max_nbytes} bytes here, so {m.plan.nbytes} were not tried"
        for m in measurements
        for peer in peers
        if peer.max_nbytes is not None and m.plan.nbytes > peer.max_nbytes
    ]
    notes += [
        f"at {m.plan.nbytes} bytes peers had turns in {m.plan.num_peer_rounds} of {m.plan.num_rounds} rounds, at most "
        f"{m.plan.num_peer_echoes} echoes or {m.plan.budget_s:.0f} s each"
        for m in measurements
    ]
    return notes


def not_installed() -> dict[str, str]:
    """Contestants that cannot be measured, and what to do about it."""
    return {
        name: f"needs the package {family.needs}: {HOW_TO_INSTALL}"
        for family in FAMILIES
        if not family.is_installed
        for name in family.names
    }
