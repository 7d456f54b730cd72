"""A process that calls peers' echo servers: `python -m benchmarks.ipc.caller FOLDER RESULTS_FD MODULE...`.

`remote_peers.Caller` starts it. It is separate from Mora's process, so that threads, allocator or environment
variables of a peer do not affect other figures. Commands are JSON lines on stdin; answers go to the descriptor,
because libraries write to stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.ipc.contestant import Contestant, Turn, take_turn
from benchmarks.ipc.lifetime import die_with_parent


@dataclass
class CallerLoop:
    """Contestants of this process, and the descriptor for answers."""

    contestants: dict[str, Contestant]
    results: int

    def answer(self, **values: Any) -> None:
        """Write one line."""
        os.write(self.results, json.dumps(values).encode() + b"\n")

    def run(self) -> None:
        """Take turns until stdin ends."""
        for line in sys.stdin:
            command = json.loads(line)
            contestant = self.contestants[command["name"]]
            try:
                self.answer(times_us=take_turn(contestant, Turn(**command["turn"])))
            except Exception as error:
                # as in Peer: ends this turn, and with it the contestant
                traceback.print_exc()
                self.answer(error=f"{type(error).__name__}: {error}")


@dataclass
class Peer:
    """The contestants of one peer module, and why they cannot be measured."""

    module: str
    contestants: list[Contestant] = field(default_factory=list)
    error: str | None = None

    def make(self, folder: Path) -> None:
        """Let the module make its contestants, which begin to start their servers."""
        self._attempt(lambda: self.contestants.extend(importlib.import_module(self.module).contestants(folder)))

    def start(self) -> None:
        """Wait for the servers and connect."""
        for contestant in self.contestants:
            self._attempt(contestant.start)

    def _attempt(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            # the boundary of the process: any error of a library ends this peer, not the benchmark
            traceback.print_exc()
            self.error = f"{self.module.rpartition('.')[2]}: {type(error).__name__}: {error}"


def main() -> None:
    """Start the peers, serve turns, close the peers."""
    die_with_parent()
    folder, results, modules = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    # this process never writes to views of received bytes
    warnings.filterwarnings("ignore", message="The given (buffer|NumPy array) is not writable")
    torch.set_num_threads(1)
    peers = [Peer(module) for module in modules]
    for peer in peers:
        peer.make(folder)
    for peer in peers:
        peer.start()
    playing = {c.name: c for peer in peers if peer.error is None for c in peer.contestants}
    loop = CallerLoop(playing, results)
    described = {name: {"note": c.note, "max_nbytes": c.max_nbytes} for name, c in playing.items()}
    loop.answer(contestants=described, failed=[peer.error for peer in peers if peer.error is not None])
    try:
        loop.run()
    finally:
        for (
            contestant
        ) in playing.values():  # the starter of this process kills those that never started or cannot close
            contestant.close()
    loop.answer(closed=True)


if __name__ == "__main__":
    main()
