"""The page of `mora review --web` over HTTP: what visitors see and decide, and what is released when one leaves."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mora_launch.environments.venvs import CONTROL, ROOT
from mora_launch.rounds.review.page import ReviewPage
from mora_launch.rounds.review.queue import ReviewQueue
from mora_launch.rounds.review.visits import MOST_VISITORS, TooManyReviewers, Visits
from mora_launch.rounds.store import RoundFolder, SetDecision
from mora_launch.web.access import Access
from mora_launch.web.listening import bound
from starlette.testclient import TestClient
from undecided_round import decided, make_undecided_round


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three sets on which the judges disagree."""
    return make_undecided_round(tmp_path / "run")


@pytest.fixture
def page(run: Path) -> Iterator[httpx.Client]:
    """The page in its own process; Ctrl-C ends it, and it prints which judges and reviewers agree."""
    with bound("127.0.0.1", 0) as probe:
        port = str(probe.getsockname()[1])
    command = [str(CONTROL.python), "-m", "mora_launch", "review", str(run), "--web", "--port", port]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        wait_listening(process, client)
        yield client
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "judges agree on" in said


def wait_listening(process: subprocess.Popen[str], client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            assert client.get("/page").status_code == 200
            return
        except httpx.TransportError:
            time.sleep(0.1)  # not listening yet
    process.kill()
    raise AssertionError("the page is not there")


class Reviewer:
    """One open page."""

    def __init__(self, page: httpx.Client, name: str) -> None:
        self._page = page
        self.shown = page.post("/v1/visits", json={"reviewer": name}).raise_for_status().json()

    @property
    def path(self) -> str:
        return f"/v1/visits/{self.shown['visitor']}"

    @property
    def index(self) -> int | None:
        return None if self.shown["set"] is None else int(self.shown["set"]["index"])

    def say(self, what: str, **body: Any) -> None:
        self.shown = self._page.post(f"{self.path}/{what}", json=body).raise_for_status().json()

    def decide(self, chosen: int | None) -> None:
        self.say("decision", round=1, index=self.index, chosen=chosen)

    def look(self) -> None:
        self.shown = self._page.get(self.path).raise_for_status().json()

    def leave(self) -> None:
        assert self._page.delete(self.path).json()["deleted"]

    def video(self, index: int, candidate: int, **headers: str) -> httpx.Response:
        return self._page.get(f"{self.path}/rounds/1/sets/{index}/videos/{candidate}", headers=headers)


def test_two_reviewers_decide_undo_skip_and_release_their_sets(run: Path, page: httpx.Client) -> None:
    ann, ben = Reviewer(page, "ann"), Reviewer(page, " ben ")
    assert (ann.index, ben.index, ben.shown["reviewer"]) == (0, 1, "ben")
    assert ann.shown["set"]["prompt"].startswith("a red circle")
    assert ann.shown["set"]["num_candidates"] == 2
    ann.decide(1)
    assert ann.index == 2
    ann.decide(None)
    assert ann.index is None, "ben is looking at the only one that is left"
    assert "ann decided 2" in ann.shown["statistics"]
    assert decided(run) == [(1, "ann"), None, (None, "ann")]
    ann.say("undo")
    assert (ann.index, decided(run)) == (2, [(1, "ann"), None, None])
    ben.say("skip", round=1, index=1)
    assert ben.index == 1, "ann holds the only other one"
    ben.leave()
    ann.say("skip", round=1, index=2)
    assert ann.index == 1
    ann.decide(0)
    ann.decide(0)
    assert decided(run) == [(1, "ann"), (0, "ann"), (0, "ann")]


def test_a_decision_must_be_about_the_set_that_is_shown(run: Path, page: httpx.Client) -> None:
    ann = Reviewer(page, "ann")
    for what in ("decision", "skip"):
        chosen = {"chosen": 0} if what == "decision" else {}
        answer = page.post(f"{ann.path}/{what}", json={"round": 1, "index": 1, **chosen})
        assert answer.status_code == 409
        assert "is not the set on your page" in answer.json()["error"]["message"]
    answer = page.post(f"{ann.path}/decision", json={"round": 1, "index": 0, "chosen": 2})
    assert (answer.status_code, decided(run)) == (409, [None, None, None])
    assert "expected a candidate from 0 to 1, got 2" in answer.json()["error"]["message"]
    RoundFolder(run, 1).set(0).write_decision(SetDecision(1, "rule"))
    answer = page.post(f"{ann.path}/decision", json={"round": 1, "index": 0, "chosen": 0})
    assert answer.status_code == 409
    assert "another reviewer has decided it meanwhile" in answer.json()["error"]["message"]
    ann.look()
    assert ann.index == 1, "the next one, since nothing is left to decide here"


def test_only_videos_of_the_set_that_is_shown_can_be_fetched(run: Path, page: httpx.Client) -> None:
    ann = Reviewer(page, "ann")
    content = RoundFolder(run, 1).set(0).preview(1).read_bytes()
    whole = ann.video(0, 1)
    assert (whole.status_code, whole.headers["content-type"], whole.content) == (200, "video/mp4", content)
    part = ann.video(0, 1, range="bytes=4-7")
    assert (part.status_code, part.content) == (206, content[4:8])
    assert ann.video(1, 0).status_code == 409
    assert ann.video(0, 2).status_code == 404
    for path in ("/rounds/1/sets/..%2f..%2fplan.json/videos/0", "/rounds/1/sets/0/videos/%2fetc%2fpasswd"):
        assert page.get(ann.path + path).status_code in (400, 404)
    assert page.get("/v1/visits/somebody/rounds/1/sets/0/videos/0").status_code == 404
    ann.leave()
    assert ann.video(0, 1).status_code == 404


WRONG_BODIES: tuple[tuple[str, Any], ...] = (
    ("", {"reviewer": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}}),
    ("", {"reviewer": ["ann"]}),
    ("", {"reviewer": ""}),
    ("", {"reviewer": "  "}),
    ("", {"reviewer": "x" * 101}),
    ("", {"reviewer": "a\x1b[2J"}),
    ("", {"reviewer": "ann", "file": "/etc/passwd"}),
    ("", {}),
    ("", ["ann"]),
    ("/decision", {"round": 1, "index": 0}),
    ("/decision", {"round": "1", "index": 0, "chosen": 0}),
    ("/decision", {"round": 1, "index": 0, "chosen": True}),
    ("/decision", {"round": 1, "index": 0, "chosen": -1}),
    ("/decision", {"round": 1.5, "index": 0, "chosen": 0}),
    ("/decision", {"round": 10**30, "index": 0, "chosen": 0}),
    ("/skip", {"round": 1, "index": {"path": "/etc/passwd"}}),
)


def test_an_invalid_request_is_refused_and_changes_nothing(run: Path, page: httpx.Client) -> None:
    ann = Reviewer(page, "ann")
    for path, body in WRONG_BODIES:
        answer = page.post(f"{ann.path}{path}" if path else "/v1/visits", json=body)
        assert answer.status_code == 400, (path, body, answer.text)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        ann.look()
        assert (ann.index, decided(run)) == (0, [None, None, None])


def test_bodies_that_are_no_json_too_deep_or_too_long_are_refused(page: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    for content, status in ((b"{", 400), (b"[" * 9000, 400), (b'"\xff"', 400), (b" " * (1 << 15), 413)):
        assert page.post("/v1/visits", content=content, headers=headers).status_code == status
    assert page.post("/v1/visits", content=b'{"reviewer": "ann"}', headers={"content-type": "text/plain"}).is_error


def test_the_page_answers_only_to_its_own_name_and_does_not_list_its_routes(page: httpx.Client) -> None:
    for path in ("/page", "/v1/visits/x"):
        assert page.get(path, headers={"host": "evil.example"}).status_code == 403
    assert page.post("/v1/visits", json={"reviewer": "a"}, headers={"origin": "http://evil.example"}).is_error
    for path in ("/docs", "/redoc", "/openapi.json", "/page/serve.js", "/rounds/01/plan.json"):
        assert page.get(path).status_code == 404
    assert page.get("/").headers["location"] == "/page"


def wait_free(run: Path) -> None:
    """Wait until no visitor has the first set."""
    queue = ReviewQueue(run, "somebody else")
    deadline = time.monotonic() + 30
    while True:
        with queue.next() as waiting:
            if waiting is not None and waiting.index == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_visitor_without_requests_for_long_counts_as_gone(run: Path) -> None:
    access = Access({"token": "a token of sixteen characters"}, None, None)
    application = ReviewPage(run, silent_s=0.3).application(access)
    with TestClient(application, headers={"authorization": f"Bearer {access.token}"}) as page:
        ann = Reviewer(page, "ann")
        assert ann.index == 0
        wait_free(run)
        answer = page.get(ann.path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "no_visit"
        assert Reviewer(page, "ann").index == 0


def test_a_visitor_with_occasional_requests_stays(run: Path) -> None:
    visits = Visits(run, silent_s=3600)
    ann = visits.begin("ann")
    with visits.visitor(ann) as visitor:
        visitor.look()
        visits.free_silent()
        assert visitor.shown is not None
    assert ann in visits
    visits.close()
    assert ann not in visits
    wait_free(run)


def test_the_number_of_visitors_is_limited_and_one_that_leaves_makes_room(run: Path) -> None:
    visits = Visits(run, silent_s=3600)
    everybody = [visits.begin(f"reviewer {number}") for number in range(MOST_VISITORS)]
    assert len(set(everybody)) == MOST_VISITORS
    with pytest.raises(TooManyReviewers, match="64 reviewers have the page open, which is the limit"):
        visits.begin("one more")
    visits.leave(everybody[0])
    visits.leave(everybody[0])
    assert visits.begin("one more") in visits
