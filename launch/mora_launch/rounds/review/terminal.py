"""Review in a terminal: candidates play side by side in half blocks, and one key makes a decision."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mora_data.clips import read_clip
from mora_data.reading.fitting import Clip
from mora_data.settings import ClipShape
from mora_runtime.errors import RoundError
from PIL import Image
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from mora_launch.rounds.agreement import agreement_of_rounds
from mora_launch.rounds.review.queue import ReviewQueue, Waiting
from mora_launch.rounds.store import RoundFolder

KEYS = "1-9 take   0 none is good   s skip   u undo   v judges' verdicts   q leave"
_GAP = 2  # columns between candidates


class TerminalReview:
    """One reviewer at one terminal.

    Args:
        shape: shape of the run's clips.
    """

    def __init__(self, queue: ReviewQueue, shape: ClipShape, console: Console) -> None:
        self._queue = queue
        self._shape = shape
        self._console = console
        self._shows_verdicts = False

    def run(self) -> int:
        """Review the queue; return the number of decisions."""
        if not sys.stdin.isatty():
            raise RoundError("review: expected a terminal as standard input; use --web to review on a page")
        num_decided = 0
        skipped: Waiting | None = None
        with _single_keys():
            while True:
                with self._queue.next(skipped) as waiting:
                    if waiting is None:
                        self._console.print("no set waits for review, except those that other reviewers see")
                        return num_decided
                    key = self._show(waiting)
                    number = self._act(key, waiting)
                if key == "q":
                    return num_decided
                num_decided += number
                skipped = waiting if key == "s" else None

    def _act(self, key: str, waiting: Waiting) -> int:
        """Act on a key; return the change in the number of decisions."""
        if key.isdigit():
            chosen = None if key == "0" else int(key) - 1
            self._queue.decide(waiting, chosen)
            what = "none is good" if chosen is None else f"candidate {key}"
            self._console.print(f"round {waiting.round}, set {waiting.index + 1}: {what}")
            return 1
        if key == "u":
            undone = self._queue.undo()
            told = "nothing to undo"
            if undone is not None:
                told = f"round {undone.round}, set {undone.index + 1}: undecided again"
            self._console.print(told)
            return 0 if undone is None else -1
        return 0

    def _show(self, waiting: Waiting) -> str:
        """Play the candidates until a valid key is pressed."""
        clips = [read_clip(path, self._shape) for path in waiting.videos]
        meaningful = {str(number) for number in range(len(clips) + 1)} | set("suq")
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            for frame in _endless(len(clips[0])):
                live.update(self._screen(waiting, clips, frame), refresh=True)
                key = _pressed(1.0 / self._shape.fps)
                if key == "v":
                    self._shows_verdicts = not self._shows_verdicts
                elif key in meaningful:
                    return key
        raise AssertionError("the frames have no end")

    def _screen(self, waiting: Waiting, clips: list[Clip], frame: int) -> Group:
        width = (self._console.width - _GAP * (len(clips) - 1)) // len(clips)
        lines = half_blocks([clip[frame] for clip in clips], min(width, 48))
        names = Text("".join(f"[{number}]".ljust(min(width, 48) + _GAP) for number in range(1, len(clips) + 1)))
        head = [Text(f"round {waiting.round}, set {waiting.index + 1}: {waiting.planned.prompt}", style="bold")]
        parts = [*head, Text(waiting.question), *lines, names]
        if self._shows_verdicts:
            parts += [Text(line) for line in _verdicts(waiting)]
        return Group(*parts, Text(KEYS, style="dim"))


def _verdicts(waiting: Waiting) -> list[str]:
    lines = []
    for verdict in (waiting.files.verdict(0), waiting.files.verdict(1)):
        if verdict is not None:
            ranking = None if verdict.ranking is None else " > ".join(str(number + 1) for number in verdict.ranking)
            lines.append(f"{verdict.judge}: {'abstains' if ranking is None else ranking or 'none is good'}")
    return lines


def half_blocks(frames: list[Clip], width: int) -> list[Text]:
    """Draw pictures, uint8 (H, W, 3) each, side by side: one character shows two pixels, one above the other."""
    height = max(2, round(width * frames[0].shape[0] / frames[0].shape[1]) // 2 * 2)
    small = [np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX)) for frame in frames]
    lines = []
    for row in range(0, height, 2):
        line = Text(no_wrap=True)
        for number, picture in enumerate(small):
            if number:
                line.append(" " * _GAP)
            for upper, lower in zip(picture[row].tolist(), picture[row + 1].tolist(), strict=True):
                line.append("▀", style=f"{_colour(upper)} on {_colour(lower)}")
        lines.append(line)
    return lines


def _colour(pixel: list[int]) -> str:
    return f"rgb({pixel[0]},{pixel[1]},{pixel[2]})"


def _endless(number: int) -> Iterator[int]:
    while True:
        yield from range(number)


@contextmanager
def _single_keys() -> Iterator[None]:
    """Deliver keys as they are pressed inside the block; restore the terminal afterwards."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(within_s: float) -> str:
    """Return the key pressed within this time, else an empty text."""
    deadline = time.monotonic() + within_s
    while (left := deadline - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0]:
            return os.read(sys.stdin.fileno(), 1).decode(errors="ignore")  # sys.stdin would buffer the keys that follow
    return ""


def statistics(run: Path) -> str:
    """Return the agreement over all rounds of a run as text."""
    folders = [RoundFolder(run, int(path.name)) for path in sorted((run / "rounds").glob("[0-9][0-9]"))]
    return f"judges {agreement_of_rounds(folders)}"
