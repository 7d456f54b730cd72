"""What tests of the page do in a browser: open it, fill it in, wait for a video."""

from __future__ import annotations

import pytest

from .browser import Browser
from .conftest import Serving

ENTER, TAB, LEFT, RIGHT, CONTROL, ESCAPE = "\ue007", "\ue004", "\ue012", "\ue014", "\ue009", "\ue00c"
WINDOWS = {"desk": (1280, 800), "phone": (360, 780)}


def in_windows(first: str) -> pytest.MarkDecorator:
    """Runs a test in both windows; in the other one than the first it is long."""
    params = [
        pytest.param(size, id=name, marks=() if name == first else pytest.mark.long) for name, size in WINDOWS.items()
    ]
    return pytest.mark.parametrize("browser", params, indirect=True)


def open_page(browser: Browser, serving: Serving, query: str = "") -> None:
    browser.open(f"http://127.0.0.1:{serving.port}/page{query}")
    browser.wait("document.querySelector('[role=tab][aria-selected=true]')")


def type_prompt(browser: Browser, text: str) -> None:
    place = "document.querySelector('[role=tabpanel]:not([hidden]) textarea')"
    browser.run(f"{place}.value = ''; {place}.focus()")
    browser.keys(text)


def check_box(browser: Browser, label: str) -> None:
    """Press the checkbox with this label in the shown form."""
    of_panel = "[...document.querySelectorAll('[role=tabpanel]:not([hidden]) .check')]"
    browser.run(f"{of_panel}.find(each => each.textContent === arguments[0]).querySelector('input').click()", label)


def tab_to(browser: Browser, text: str) -> None:
    """Press Tab until the element with the focus has this text."""
    for _ in range(60):
        said = browser.run("return document.activeElement.textContent.replace('▶ ', '')")
        if said == text:
            return
        browser.press(TAB)
    raise AssertionError(f"Tab does not lead to {text!r}: {browser.text()}")


def shown_job(browser: Browser) -> str:
    return str(browser.wait("new URLSearchParams(location.search).get('job')"))


def wait_video(browser: Browser) -> None:
    """Wait until the finished video plays."""
    browser.wait("document.querySelector('#job .job > .media video')?.readyState >= 2")


def check_is_sound(browser: Browser) -> None:
    """Assert that nothing is wider than the window, no script failed, and the policy refused nothing."""
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert [each for each in browser.complaints() if "Failed to load resource" not in each] == []
