"""People decide what judges do not agree on: at the terminal, on the page, several at once."""

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import gradio_client
import httpx
import pytest
from hand_made_round import make_round
from mora_launch.config import load_config
from mora_launch.environments import ENVIRONMENTS, ROOT
from mora_launch.rounds.judge import Verdict
from mora_launch.rounds.review_command import review
from mora_launch.rounds.review_queue import ReviewQueue
from mora_launch.rounds.store import RoundFolder, write_once
from mora_launch.web.listening import bound
from mora_runtime.errors import RoundError, SettingsError
from rich.console import Console

CONFIG = load_config(ROOT / "configs" / "tiny-rounds.yaml", ["synthesis.num_candidates=2"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three sets on which the judges disagree."""
    path = make_round(tmp_path / "run", CONFIG.clip, num_sets=3)
    write_once(path / "config.json", CONFIG.model_dump(mode="json"))
    for index in range(3):
        for number, ranking in enumerate(((0, 1), (1, 0))):
            RoundFolder(path, 1).set(index).write_verdict(
                number, Verdict(f"judge {number}", "flicker", (0, 1), ranking, ("raw",))
            )
    return path


def decided(run: Path) -> list[tuple[int | None, str | None] | None]:
    found = [RoundFolder(run, 1).set(index).decision() for index in range(3)]
    return [None if decision is None else (decision.chosen, decision.reviewer) for decision in found]


def test_several_reviewers_are_never_shown_the_same_set(run: Path) -> None:
    queues = [ReviewQueue(run, name) for name in "abcd"]
    with ExitStack() as held:
        shown = [held.enter_context(queue.next()) for queue in queues]
        assert [None if waiting is None else waiting.index for waiting in shown] == [0, 1, 2, None]
    with queues[3].next() as waiting:
        assert waiting is not None
        queues[3].decide(waiting, 1)
        with pytest.raises(RoundError, match="decided by somebody else"):
            queues[0].decide(waiting, 0)
        with pytest.raises(RoundError, match="expected a candidate from 0 to 1, got 2"):
            queues[0].decide(waiting, 2)
    assert decided(run) == [(1, "d"), None, None]


def test_undo_takes_back_ones_own_latest_decision_until_the_round_is_fixed(run: Path) -> None:
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
    """Run at a terminal of its own; the keys are all pressed at once, when the first set is shown."""
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
        except OSError:  # how a terminal says that nobody is left
            pass
        finally:
            process.terminate()
            os.close(ours)
    return process.returncode, said.decode(errors="replace")


def test_keys_at_a_terminal_decide_undo_skip_and_leave(run: Path) -> None:
    command = [str(ENVIRONMENTS["control"].python), "-m", "mora_launch", "review", str(run), "--reviewer", "ann"]
    # the first: verdicts, take 2, undo, skip; then none of the second, take 1 of the first, leave
    code, said = typed(command, b"v2us0x1q")
    assert code == 0, said
    assert decided(run) == [(0, "ann"), (None, "ann"), None]
    assert "2 decided, 1 wait" in said
    assert "judge 1: 2 > 1" in said
    assert "undecided again" in said


@pytest.fixture
def page(run: Path) -> Iterator[str]:
    """The page in a process of its own; Ctrl-C ends it, and it shows who agrees with whom."""
    with bound("127.0.0.1", 0) as probe:
        port = str(probe.getsockname()[1])
    command = [str(ENVIRONMENTS["control"].python), "-m", "mora_launch", "review", str(run), "--web", "--port", port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        wait_listening(process, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "judges agree on" in said


def wait_listening(process: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            assert httpx.get(url).status_code == 200
            return
        except httpx.TransportError:
            time.sleep(0.1)  # not listening yet
    process.kill()
    raise AssertionError("the page is not there")


def test_the_page_answers_to_its_own_name_and_gives_files_of_the_rounds_alone(run: Path, page: str) -> None:
    (run / "keys").mkdir()
    (run / "keys" / "secret").write_text("secret")
    video = next((run / "rounds").rglob("*.mp4"))
    for path, status in ((video, 200), (run / "keys" / "secret", 403), (Path("/etc/passwd"), 403)):
        assert httpx.get(f"{page}/gradio_api/file={path}").status_code == status
    assert httpx.get(page, headers={"host": "evil.example"}).status_code == 403


def test_an_address_that_is_taken_is_refused_in_one_line(run: Path) -> None:
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        address = taken.getsockname()
        with pytest.raises(SettingsError, match=r"^--host 127\.0\.0\.1 --port \d+: cannot be listened on: [^\n]*$"):
            review(run, "ann", address, False, Console(quiet=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")
def test_the_page_shows_decides_undoes_and_frees_what_a_visitor_who_leaves_held(run: Path, page: str) -> None:
    ann, ben = (gradio_client.Client(page, verbose=False) for _ in range(2))
    head, first, second, _ = ann.predict("ann", api_name="/begin")
    assert head.startswith("**a red circle")
    assert all(Path(video).stat().st_size > 0 for video in (first, second))
    assert ben.predict("ben", api_name="/begin")[0] != head
    ann.predict(api_name="/take_2")
    ann.predict(api_name="/none")
    assert decided(run) == [(1, "ann"), None, (None, "ann")]
    ann.predict(api_name="/undo")
    assert decided(run) == [(1, "ann"), None, None]
    ann.predict(api_name="/take_1")
    assert ann.predict(api_name="/skip")[0].startswith("nothing waits")
    # what a browser holds open for as long as the page is, and ends with it
    with httpx.stream("GET", ben.heartbeat_url.format(session_hash=ben.session_hash), timeout=30.0) as heartbeat:
        assert next(heartbeat.iter_raw())
    for _ in range(200):  # the server hears of it a moment later
        if not ann.predict("ann", api_name="/begin")[0].startswith("nothing waits"):
            break
    ann.predict(api_name="/take_1")
    ann.close()
    assert decided(run) == [(1, "ann"), (0, "ann"), (0, "ann")]
