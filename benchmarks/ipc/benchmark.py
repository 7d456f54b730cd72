"""One run of the benchmark: starts all contestants, measures every size in interleaved rounds, ends all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.ipc import floor
from benchmarks.ipc.by_reference import measure_by_reference
from benchmarks.ipc.contestant import Contestant
from benchmarks.ipc.measurement import Measurement, RemotePeer, measure
from benchmarks.ipc.ours import OurServers, bulk_contestants, our_servers, small_contestants
from benchmarks.ipc.peers import FAMILIES, PING, Family
from benchmarks.ipc.plan import SMALL_NBYTES, SizePlan
from benchmarks.ipc.remote_peers import Caller
from benchmarks.ipc.report import make_report, not_installed
from benchmarks.ipc.soak import soak
from benchmarks.ipc.turn_process import TurnFailed

_REFERENCE_ROUNDS = 10


@dataclass(frozen=True)
class Order:
    """What to measure.

    Args:
        families: peers to measure; the report lists other installed ones as left out.
        num_soaked: messages of the soak, 0 for none.
    """

    plans: Sequence[SizePlan]
    families: Sequence[Family]
    reference_nbytes: int
    num_soaked: int = 0


@dataclass
class Peers:
    """The peers that started, and why others did not."""

    playing: list[RemotePeer] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run(order: Order, folder: Path, progress: Progress) -> dict[str, Any]:
    """Measure everything and return the report.

    Args:
        folder: receives sockets, logs and the run directory; its path should be short.

    Raises:
        WrongAnswer: Mora's answer, or that of the lower bound, is not x + 1.
        KeyboardInterrupt
    """
    with peers_of(order.families, folder) as peers, our_servers(folder) as opened:
        measurements = [_measure_size(plan, opened, peers.playing, progress) for plan in order.plans]
        tick = _ticker(progress, "by reference", 2 * _REFERENCE_ROUNDS, opened)
        by_reference = measure_by_reference(opened, order.reference_nbytes, _REFERENCE_ROUNDS, tick)
        soaked = None
        if order.num_soaked:
            tick = _ticker(progress, "soak", order.num_soaked // 1000, opened)
            soaked = soak(opened, order.num_soaked, tick)
    problems = {"not_installed": not_installed(), "left_out": _left_out(order.families), "failed": peers.failed}
    return make_report(measurements, by_reference, soaked, peers.playing, problems)


@contextlib.contextmanager
def peers_of(families: Sequence[Family], folder: Path) -> Iterator[Peers]:
    """Start all peers at the same time, yield, then end them."""
    words = list(dict.fromkeys(family.caller for family in families))
    callers: list[Caller] = []
    is_orderly = False
    try:
        for word in words:
            callers.append(Caller(word, [family for family in families if family.caller == word], folder))
        peers = Peers()
        for caller in callers:
            _take_in(caller, peers)
        yield peers
        is_orderly = True
    finally:
        for caller in callers:
            caller.close(orderly=is_orderly)


def _take_in(caller: Caller, peers: Peers) -> None:
    try:
        described, failed = caller.wait_ready()
    except TurnFailed as error:
        peers.failed.append(str(error))
        caller.close(orderly=False)
        return
    peers.failed += failed
    peers.playing += [RemotePeer(name, caller, **description) for name, description in described.items()]


def _measure_size(plan: SizePlan, opened: OurServers, peers: Sequence[RemotePeer], progress: Progress) -> Measurement:
    is_small = plan.nbytes == SMALL_NBYTES
    local: list[Contestant] = [*floor.contestants(), *bulk_contestants(opened)]
    local += small_contestants(opened) if is_small else []
    playing = [peer for peer in peers if is_small or peer.name != PING]
    num_turns = plan.num_rounds * len(local) + plan.num_peer_rounds * len(playing)
    tick = _ticker(progress, f"{plan.nbytes:,} bytes", num_turns, opened)
    return measure(plan, local, playing, tick)


def _ticker(progress: Progress, title: str, total: int, opened: OurServers) -> Callable[[], None]:
    """Make the function to call after every step: it shows progress, and ends the measurement after Ctrl-C."""
    task = progress.add_task(title, total=total)

    def tick() -> None:
        progress.advance(task)
        opened.check_interrupt()

    return tick


def _left_out(families: Sequence[Family]) -> dict[str, str]:
    return {
        name: "not selected for this run"
        for family in FAMILIES
        if family.is_installed and family not in families
        for name in family.names
    }
