"""The page of `mora serve` in a real browser, at the widths of a desktop and of a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from .browser import MISSING, Browser, started_browser
from .conftest import Serving, start, stop
from .page import (
    CONTROL,
    ENTER,
    RIGHT,
    check_box,
    check_is_sound,
    in_windows,
    open_page,
    shown_job,
    type_prompt,
    wait_video,
)

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)} on PATH (Debian: chromium-driver)"),
]
HOSTILE = "<img src=x onerror=document.title='ran'><b>bold</b>"


@in_windows("phone")
def test_a_video_is_made_and_found_in_the_gallery(browser: Browser, serving: Serving) -> None:
    open_page(browser, serving)
    assert "Accept" not in browser.text(), "review buttons are there only when something waits"
    type_prompt(browser, HOSTILE)
    browser.keys(CONTROL + ENTER)
    identifier = shown_job(browser)
    wait_video(browser)
    assert serving.finished(identifier)["prompt"] == HOSTILE
    browser.wait("document.querySelector('#gallery .card h3')?.textContent === arguments[0]", HOSTILE)
    browser.wait("document.querySelector('#gallery .card img')?.naturalWidth === 32")
    seed = serving.finished(identifier)["seed"]
    assert f"seed {seed}" in browser.text()
    assert HOSTILE in browser.text(), "a stranger's prompt is shown as it is"
    assert browser.run("return document.querySelector('b, img[src=x]')") is None
    assert "ran" not in browser.run("return document.title")
    check_is_sound(browser)


@in_windows("desk")
def test_a_review_is_completed_and_opens_by_its_address(browser: Browser, serving: Serving) -> None:
    open_page(browser, serving)
    type_prompt(browser, "a blue square")
    check_box(browser, "Review every stage")
    browser.button("Make the video")
    identifier = shown_job(browser)
    browser.wait("document.querySelector('.review h3').textContent === 'The prompt waits for you'")
    browser.button("Stop")
    browser.button("Resume the review")
    browser.wait("document.querySelector('.review h3').textContent === 'The prompt waits for you'")
    browser.button("Edit the prompt")
    browser.run("document.activeElement.value = ''")
    browser.keys("a green square")
    browser.button("Make it from this prompt")
    browser.wait("document.querySelector('.review .prompt').textContent === 'a green square'")
    browser.button("Accept")
    browser.wait("document.querySelector('.review img')?.naturalWidth === 32")
    browser.open(f"http://127.0.0.1:{serving.port}/page?job={identifier}")  # as another person who was sent the link
    browser.wait("document.querySelector('.review h3')?.textContent === 'The image waits for you'")
    assert "Accepted: prompt" in browser.text()
    browser.button("Accept")
    browser.wait("document.querySelector('.review video')?.readyState >= 2")
    assert "Adjust the picture" not in browser.text(), "only pictures can be adjusted"
    assert browser.run("return document.querySelector('.review h3').textContent") == "Segment 1 waits for you"
    assert "segment 1 waits for a reviewer" in browser.text().lower()
    assert "the segment" not in browser.text().lower()
    browser.button("Accept")
    wait_video(browser)
    browser.wait("document.activeElement === document.querySelector('#job .job > .media video')")
    assert serving.finished(identifier)["status"] == "completed"
    assert "Accept" not in browser.text()
    check_is_sound(browser)


@in_windows("desk")
def test_every_task_is_reachable_by_keyboard_and_errors_are_shown_at_their_field(
    browser: Browser, serving: Serving
) -> None:
    open_page(browser, serving)
    browser.run("document.querySelector('[role=tab]').focus()")
    names = []
    for _ in range(7):
        names.append(browser.run("return document.activeElement.textContent"))
        browser.keys(RIGHT)
    assert names == ["Text to video", "Image to video", "Extend", "Edit", "Connect", "Simulate", "Picture"]
    assert browser.run("return document.activeElement.textContent") == "Text to video", (
        "the last is followed by the first"
    )
    browser.keys(RIGHT + RIGHT)
    assert browser.run("return document.querySelector('[role=tabpanel]:not([hidden])').id") == "panel-extend"
    shown = browser.run("return document.querySelector('[role=tabpanel]:not([hidden])').innerText")
    assert "Picture" not in shown, "a tab has its own fields alone"
    browser.button("Make the video")
    browser.wait("document.activeElement.matches('textarea[aria-invalid]')")
    assert "expected a text" in browser.run(
        "return document.getElementById(document.activeElement.getAttribute('aria-describedby')).textContent"
    )
    type_prompt(browser, "it goes on")
    browser.button("Make the video")
    browser.wait("document.activeElement.matches('input[type=file][aria-invalid]')")
    assert "extend needs 1 video" in browser.text()
    check_is_sound(browser)


@in_windows("phone")
def test_a_finished_video_is_extended_and_connected_from_the_gallery(browser: Browser, serving: Serving) -> None:
    open_page(browser, serving)
    browser.button("a red circle moves right")
    first = shown_job(browser)
    wait_video(browser)
    for label, task in (("Extend this", "extend"), ("Connect with…", "connect")):
        browser.button(label)
        browser.wait("document.querySelector('[role=tabpanel]:not([hidden])').id === arguments[0]", f"panel-{task}")
        names = f"[...document.querySelectorAll('#panel-{task} input[type=file]')].map((each) => each.files[0]?.name)"
        prompt = serving.finished(first)["prompt"]
        if task == "connect":
            browser.wait("document.activeElement === document.querySelectorAll('#panel-connect input[type=file]')[1]")
            assert "Choose the second video: a file, or “Connect with…” on another video." in browser.text()
            assert browser.run(f"return {names}") == [prompt, None]
            browser.button(label)  # of the same video again, for the second place
            browser.wait("document.querySelectorAll('#panel-connect .chosen:not([hidden]) video').length === 2")
            assert "Choose the second video" not in browser.text()
        browser.wait("document.activeElement.matches('textarea')")
        expected = [prompt] * (2 if task == "connect" else 1)
        assert browser.run(f"return {names}") == expected, "the browser does not say that no file is chosen"
        type_prompt(browser, "it goes on")
        browser.button("Make the video")
        browser.wait("new URLSearchParams(location.search).get('job') !== arguments[0]", first)
        first = shown_job(browser)
        wait_video(browser)
        assert serving.finished(first)["task"] == task
    check_is_sound(browser)


def test_the_token_comes_from_the_link_or_a_form_and_is_removed_from_the_address(tmp_path: Path) -> None:
    token = "a-token-of-the-user"
    (tmp_path / "token").write_text(token)
    (tmp_path / "token").chmod(0o600)
    serving = start(tmp_path / "serving", "--token-file", str(tmp_path / "token"))
    try:
        with started_browser(tmp_path / "chromium", 1280, 800) as browser:
            browser.open(f"http://127.0.0.1:{serving.port}/page")
            browser.wait("document.querySelector('dialog input') === document.activeElement")
            browser.keys("not the token" + ENTER)
            browser.wait("document.body.innerText.includes('is not this server’s')")
            browser.keys(token + ENTER)
            browser.wait("document.activeElement.id === 'tab-text_to_video'")
            browser.button("a red circle moves right")
            wait_video(browser)
            browser.wait("document.querySelector('#gallery .card img')")
            browser.run("sessionStorage.clear()")
            browser.open(f"http://127.0.0.1:{serving.port}/page?token={token}&job=none")
            browser.wait("document.querySelector('#gallery .card img')")
            assert browser.run("return location.search") == "?job=none"
            assert "no video `none`" in browser.wait("document.querySelector('.job .error').textContent")
            assert browser.run("return document.cookie") == ""
    finally:
        stop(serving)
