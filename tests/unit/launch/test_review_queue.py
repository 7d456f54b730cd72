"""People decide sets on which judges disagree, at the terminal and several at once."""

import os
import pty
import select
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from mora_launch.environments.venvs import CONTROL, ROOT
from mora_launch.rounds.review.command import review
from mora_launch.rounds.review.queue import ReviewQueue
from mora_launch.rounds.store import RoundFolder
from mora_launch.web.listening import bound
from mora_runtime.errors import RoundError, SettingsError
from rich.console import Console
from undecided_round import decided, make_undecided_round


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three sets on which the judges disagree."""
    return make_undecided_round(tmp_path / "run")


def test_several_reviewers_are_never_shown_the_same_set(run: Path) -> None:
    queues = [ReviewQueue(run, name) for name in "abcd"]
    with ExitStack() as held:
        shown = [held.enter_context(queue.next()) for queue in queues]
        assert [None if waiting is None else waiting.index for waiting in shown] == [0, 1, 2, None]
    with queues[3].next() as waiting:
        assert waiting is not None
        queues[3].decide(waiting, 1)
        with pytest.raises(RoundError, match="another reviewer has decided it"):
            queues[0].decide(waiting, 0)
        with pytest.raises(RoundError, match="expected a candidate from 0 to 1, got 2"):
            queues[0].decide(waiting, 2)
    assert decided(run) == [(1, "d"), None, None]


def test_undo_reverts_the_reviewers_own_latest_decision_until_the_round_is_fixed(run: Path) -> None:
    mine, other = ReviewQueue(run, "mine"), ReviewQueue(run, "other")
    for queue in (mine, other, mine):
        with queue.next() as waiting:
            assert waiting is not None
            queue.decide(waiting, None)
    undone = mine.undo()
    assert undone is not None
    assert undone.index == 2
    assert decided(run) == [(None, "mine"), (None, "other"), None]
    RoundFolder(run, 1).manifest.write_text("{}")
    assert mine.undo() is None
    assert decided(run) == [(None, "mine"), (None, "other"), None]


def typed(command: list[str], keys: bytes) -> tuple[int, str]:
    """Run at its own terminal; all keys are sent at once when the first set is shown."""
    ours, theirs = pty.openpty()
    said = b""
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT) as process:
        os.close(theirs)
        try:
            while select.select([ours], [], [], 60)[0] and (part := os.read(ours, 1 << 16)):
                said += part
                if keys and b"q leave" in said:
                    os.write(ours, keys)
                    keys = b""
        except OSError:  # a terminal reports in this way that its last process has ended
            pass
        finally:
            process.terminate()
            os.close(ours)
    return process.returncode, said.decode(errors="replace")


def test_keys_at_a_terminal_decide_undo_skip_and_leave(run: Path) -> None:
    command = [str(CONTROL.python), "-m", "mora_launch", "review", str(run), "--reviewer", "ann"]
    # the first: verdicts, take 2, undo, skip; then none of the second, take 1 of the first, leave
    code, said = typed(command, b"v2us0x1q")
    assert code == 0, said
    assert decided(run) == [(0, "ann"), (None, "ann"), None]
    assert "2 decided, 1 wait" in said
    assert "judge 1: 2 > 1" in said
    assert "undecided again" in said


def test_an_address_that_is_taken_is_refused_in_one_line(run: Path) -> None:
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        address = taken.getsockname()
        with pytest.raises(SettingsError, match=r"^--host 127\.0\.0\.1 --port \d+: cannot listen on it: [^\n]*$"):
            review(run, "ann", address, False, Console(quiet=True))
