"""The page of `mora review --web` in a real browser, at the widths of a desktop and of a phone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from mora_launch.environments.venvs import CONTROL, ROOT
from mora_launch.rounds.review.queue import ReviewQueue
from mora_launch.web.listening import bound

from tests.integration.serving.browser import MISSING, Browser, started_browser
from tests.unit.launch.undecided_round import decided, make_undecided_round

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"needs {' and '.join(MISSING)} on PATH (Debian: chromium-driver)"
)
ENTER = "\ue007"


def wait(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desk", "phone"])
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Browser]:
    with started_browser(tmp_path / "chromium", *request.param) as started:
        yield started


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_undecided_round(tmp_path / "run")


@pytest.fixture
def url(run: Path) -> Iterator[str]:
    with bound("127.0.0.1", 0) as probe:
        port = str(probe.getsockname()[1])
    command = [str(CONTROL.python), "-m", "mora_launch", "review", str(run), "--web", "--port", port]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        wait(lambda: process.poll() is None and answers(f"http://127.0.0.1:{port}/page"))
        yield f"http://127.0.0.1:{port}/"
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False  # not listening yet


def shows(browser: Browser, prompt: str) -> None:
    """Wait until a set is shown and its two videos play."""
    browser.wait("document.querySelector('h2').textContent === arguments[0]", prompt)
    browser.wait("[...document.querySelectorAll('video')].filter(each => each.readyState >= 2).length === 2")


def test_keys_decide_except_while_a_name_is_typed_and_a_closed_page_releases_its_set(
    browser: Browser, run: Path, url: str
) -> None:
    sets = ReviewQueue(run, "somebody").waiting()
    first, second, third = (each.planned.prompt for each in sets)
    browser.open(url)
    browser.wait("document.activeElement.matches('input')")
    browser.keys("ann 120su" + ENTER)
    shows(browser, first)
    assert decided(run) == [None, None, None]
    browser.keys("2")
    shows(browser, second)
    assert decided(run) == [(1, "ann 120su"), None, None]
    browser.keys("s")
    shows(browser, third)
    browser.keys("0")
    shows(browser, second)
    assert decided(run) == [(1, "ann 120su"), None, (None, "ann 120su")]
    browser.keys("u")
    wait(lambda: decided(run) == [(1, "ann 120su"), None, None])
    shows(browser, second)
    browser.button("Take 1")
    shows(browser, third)
    assert decided(run) == [(1, "ann 120su"), (0, "ann 120su"), None]
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.complaints() == []
    browser.open("about:blank")
    wait(lambda: is_free(run), within_s=15.0)  # after 20 s it is free in any case


def is_free(run: Path) -> bool:
    with ReviewQueue(run, "somebody").next() as waiting:
        return waiting is not None
