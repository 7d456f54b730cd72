"""The processes that call the peers, seen from the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.ipc.contestant import Turn
from benchmarks.ipc.lifetime import ONE_THREAD
from benchmarks.ipc.peers import Family
from benchmarks.ipc.turn_process import TurnFailed, TurnProcess


class Caller(TurnProcess):
    """One process that calls the echo servers of some families of peers.

    Args:
        folder: receives sockets and the callers' output; its path should be short.
    """

    def __init__(self, word: str, families: Sequence[Family], folder: Path) -> None:
        super().__init__(word, "benchmarks.ipc.caller", [family.path for family in families], folder, ONE_THREAD)

    def wait_ready(self) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """The contestants of this caller, by name (`note`, `max_nbytes`), and why others did not start."""
        answer = self.first_answer()
        return answer["contestants"], answer["failed"]

    def take_turn(self, name: str, turn: Turn) -> list[float]:
        """Microseconds of each timed echo.

        Raises:
            TurnFailed: the contestant gave a wrong answer, failed, or took too long.
        """
        if self.is_closed:
            raise TurnFailed(f"{name}: its caller ended when another of its contestants failed")
        try:
            answer = self.ask({"name": name, "turn": asdict(turn)})
        except (TurnFailed, OSError) as error:
            self.close(orderly=False)  # it stopped in the middle of a turn and cannot take another
            raise TurnFailed(f"{name}: {error}") from None
        if "error" in answer:
            raise TurnFailed(f"{name}: {answer['error']}")
        times_us: list[float] = answer["times_us"]
        return times_us
