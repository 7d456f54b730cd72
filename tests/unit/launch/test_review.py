"""People's review: nobody is shown another's set, decisions can be taken back, one key is one decision."""

import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest
from mora_launch.rounds.agreement import agreement_of_rounds
from mora_launch.rounds.judge import Verdict
from mora_launch.rounds.review_page import Visitor
from mora_launch.rounds.review_queue import ReviewQueue
from mora_launch.rounds.store import Plan, PlannedSet, RoundFolder
from mora_runtime.errors import RoundError
from mora_trainer.clips import made_clip, write_video
from mora_trainer.settings import ClipShape

SHAPE = ClipShape(num_frames=9, height=64, width=64, fps=8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one round of three sets on which the judges disagree."""
    folder = RoundFolder(tmp_path, 1)
    sets = tuple(PlannedSet(f"prompt {index}", "flicker", (1, 2, 3, 4)) for index in range(3))
    folder.write_plan(Plan(1, 0, 4, {"image": "a"}, sets))
    for index in range(3):
        for number in range(4):
            write_video(folder.set(index).video(number), made_clip(index + number, SHAPE)[1], 8.0)
        for judge, best in enumerate(((0, 1, 2, 3), (1, 0, 2, 3))):
            verdict = Verdict(f"judge {judge}", "flicker", (0, 1, 2, 3), best, ("raw",))
            folder.set(index).write_verdict(judge, verdict)
    return tmp_path


def test_two_reviewers_are_never_shown_the_same_set(run: Path) -> None:
    ann, bob = ReviewQueue(run, "ann"), ReviewQueue(run, "bob")
    with ann.next() as first, bob.next() as second:
        assert first is not None
        assert second is not None
        assert (first.index, second.index) == (0, 1)
        ann.decide(first, 1)
        bob.decide(second, None)
    with ann.next() as third:
        assert third is not None
        assert third.index == 2
        with bob.next() as nothing:
            assert nothing is None
    decisions = [RoundFolder(run, 1).set(index).decision() for index in range(3)]
    assert [(d.chosen, d.reviewer) if d else None for d in decisions] == [(1, "ann"), (None, "bob"), None]


def test_a_decision_is_taken_back_until_the_round_has_its_manifest(run: Path) -> None:
    queue = ReviewQueue(run, "ann")
    with queue.next() as waiting:
        assert waiting is not None
        queue.decide(waiting, 2)
        with pytest.raises(RoundError, match="decided by somebody else"):
            queue.decide(waiting, 2)
    undone = queue.undo()
    assert undone is not None
    assert undone.index == 0
    assert len(queue.waiting()) == 3
    assert queue.undo() is None
    with queue.next() as waiting:
        assert waiting is not None
        queue.decide(waiting, 0)
    RoundFolder(run, 1).manifest.write_text("{}")
    assert queue.undo() is None
    assert len(queue.waiting()) == 2


def test_a_skipped_set_comes_again_after_the_others(run: Path) -> None:
    queue = ReviewQueue(run, "ann")
    with queue.next() as first:
        pass
    with queue.next(first) as second:
        assert second is not None
        assert second.index == 1
    with queue.next(queue.waiting()[2]) as again:
        assert again is not None
        assert again.index == 0


def test_no_candidate_outside_the_set_is_taken(run: Path) -> None:
    queue = ReviewQueue(run, "ann")
    with queue.next() as waiting:
        assert waiting is not None
        with pytest.raises(RoundError, match="from 0 to 3, got 4"):
            queue.decide(waiting, 4)


def test_statistics_say_with_which_judge_a_reviewer_agrees(run: Path) -> None:
    queue = ReviewQueue(run, "ann")
    for chosen in (1, 1, 0):
        with queue.next() as waiting:
            assert waiting is not None
            queue.decide(waiting, chosen)
    agreement = agreement_of_rounds([RoundFolder(run, 1)])
    assert agreement.by_reviewer == {"ann": (3, 1, 2)}
    assert (agreement.num_agreed, agreement.num_both_answered) == (0, 3)


def test_visitors_of_the_page_hold_what_they_are_shown_and_let_go(run: Path) -> None:
    ann, bob = Visitor(run, "ann"), Visitor(run, "bob")
    first, second = ann.advance(), bob.advance()
    assert first is not None
    assert second is not None
    assert first.index != second.index
    ann.decide(3)
    assert ann.shown is not None
    assert ann.shown.index == 2
    ann.undo()
    assert ann.shown is not None
    assert ann.shown.index == 0
    ann.leave()
    bob.skip()
    assert bob.shown is not None
    assert bob.shown.index == 2
    bob.leave()


def test_keys_in_a_terminal_decide_take_back_and_leave(run: Path) -> None:
    program = (
        "from pathlib import Path; from rich.console import Console\n"
        "from mora_launch.rounds.review_queue import ReviewQueue\n"
        "from mora_launch.rounds.review_terminal import TerminalReview\n"
        "from mora_trainer.settings import ClipShape\n"
        "shape = ClipShape(num_frames=9, height=64, width=64, fps=8)\n"
        f"print('decided', TerminalReview(ReviewQueue(Path({str(run)!r}), 'ann'), shape, Console()).run())\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(COLUMNS="200", LINES="60", TERM="xterm-256color")
        os.execv(sys.executable, [sys.executable, "-c", program])
    said = b""
    try:
        for waits_for, key in ((b"prompt 0", "2"), (b"prompt 1", "u"), (b"undecided again", "1"), (b"prompt 1", "q")):
            said = _read_until(terminal, waits_for)
            os.write(terminal, key.encode())
        said = _read_until(terminal, b"decided 1")
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    assert "▀".encode() in said or b"decided 1" in said
    decisions = [RoundFolder(run, 1).set(index).decision() for index in range(3)]
    assert [d.chosen if d else None for d in decisions] == [0, None, None]


def _read_until(terminal: int, wanted: bytes, within_s: float = 30.0) -> bytes:
    """Everything the program wrote up to and with `wanted`."""
    said, deadline = b"", time.monotonic() + within_s
    while wanted not in said:
        assert time.monotonic() < deadline, said[-500:]
        if select.select([terminal], [], [], 1.0)[0]:
            said += os.read(terminal, 65536)
    return said
