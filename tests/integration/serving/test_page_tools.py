"""What the page adds to making videos: stages, comparison, other reviewers; and all of it by keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from .browser import MISSING, Browser, started_browser
from .conftest import Serving
from .page import (
    CONTROL,
    ENTER,
    ESCAPE,
    LEFT,
    RIGHT,
    TAB,
    WINDOWS,
    check_box,
    check_is_sound,
    in_windows,
    open_page,
    shown_job,
    tab_to,
    type_prompt,
    wait_video,
)

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)} on PATH (Debian: chromium-driver)"),
]
TASKS = {
    "text_to_video": "a red circle moves right",
    "image_to_video": "the red circle moves left",
    "extend": "the red circle keeps moving right",
    "edit": "make the circle green",
    "connect": "the red circle becomes the blue square",
    "simulate": "a yellow circle moves left",
}
MOST_SHIFT = 0.1  # of the sum that browsers call "cumulative layout shift"; up to this a page is "good"
SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value;
}).observe({ type: "layout-shift" });
"""


@in_windows("desk")
def test_all_six_tasks_are_done_by_keyboard_alone(browser: Browser, serving: Serving) -> None:
    for number, (task, example) in enumerate(TASKS.items()):
        open_page(browser, serving)
        tab_to(browser, "Text to video")
        for _ in range(number):
            browser.press(RIGHT)
        tab_to(browser, example)
        browser.press(ENTER)
        job = shown_job(browser)
        wait_video(browser)
        assert serving.finished(job)["task"] == task
        stages = browser.run("return [...document.querySelectorAll('.stage')].map((each) => each.dataset.status)")
        assert set(stages) == {"completed"}
        tab_to(browser, "Again")
        browser.press(ENTER)
        assert browser.run("return document.activeElement.textContent") == "Make the video"
        check_is_sound(browser)


@in_windows("phone")
def test_the_stages_fill_while_a_video_is_made_and_nothing_else_moves(browser: Browser, serving: Serving) -> None:
    open_page(browser, serving)
    browser.run("document.querySelector('[role=tabpanel]:not([hidden]) details').open = true")
    browser.run(
        "const fields = [...document.querySelectorAll('[role=tabpanel]:not([hidden]) .field')];"
        "fields.find((each) => each.textContent.startsWith('Steps')).querySelector('input').value = '600'"
    )
    type_prompt(browser, "a red circle")
    browser.keys(CONTROL + ENTER)
    shown_job(browser)
    browser.wait("[...document.querySelectorAll('.stage')].some((each) => /step [1-9]/.test(each.ariaLabel))")
    browser.run(SHIFTS)  # from here on, because opening the job, which moves the page, was asked for
    assert len(browser.run("return document.querySelectorAll('.stage')")) == 3, "also those that have not begun"
    browser.wait("document.querySelectorAll('.stage img')[0]?.naturalWidth > 0")
    assert browser.run("return document.querySelector('.job > .media video')") is None, "the picture is there first"
    assert "a red circle" in browser.run("return document.querySelector('.stage .frame').textContent").lower()
    wait_video(browser)
    browser.wait("document.querySelectorAll('.stage img').length === 2")
    assert browser.run("return window.shifts") < MOST_SHIFT
    check_is_sound(browser)


@in_windows("desk")
def test_two_videos_play_side_by_side_in_step(browser: Browser, serving: Serving) -> None:
    for seed, seconds in ((1, 2), (2, 3)):
        serving.video(prompt=f"compared {seed}", seed=seed, seconds=seconds)
    open_page(browser, serving)
    for seed in (1, 2):
        card = f"[...document.querySelectorAll('.card')].find((each) => each.textContent.includes('compared {seed}'))"
        compare = f"[...{card}.querySelectorAll('button')].find((each) => each.textContent === 'Compare')"
        browser.wait(f"{card} !== undefined")
        browser.run(f"{compare}.focus()")
        browser.press(ENTER)
    browser.wait("document.querySelectorAll('dialog video').length === 2")
    assert "compared 1" in browser.run("return document.querySelector('dialog').textContent")
    moving = "[...document.querySelectorAll('dialog video')].every((each) => each.currentTime > 0.3)"
    browser.wait(moving)
    browser.wait("document.activeElement.textContent === 'Pause'")
    browser.press(ENTER)
    browser.wait("[...document.querySelectorAll('dialog video')].every((each) => each.paused)")
    browser.press(TAB)
    for _ in range(3):
        browser.press(LEFT)
    browser.run("const place = document.activeElement; place.value = 1.5; place.dispatchEvent(new Event('input'))")
    at_s = "[...document.querySelectorAll('dialog video')].map((each) => Math.round(each.currentTime * 10))"
    browser.wait(f"{at_s}.join() === '15,15'")
    browser.press(ESCAPE)
    browser.wait("document.querySelector('dialog') === null")
    assert browser.run("return document.activeElement.textContent") == "Compare"
    check_is_sound(browser)


@in_windows("desk")
def test_a_reviewer_sees_who_else_is_looking(browser: Browser, serving: Serving, tmp_path: Path) -> None:
    open_page(browser, serving)
    type_prompt(browser, "a blue square")
    check_box(browser, "Review every stage")
    browser.button("Make the video")
    job = shown_job(browser)
    browser.wait("document.querySelector('.review h3').textContent === 'The prompt waits for you'")
    assert "looking at this" not in browser.text()
    with started_browser(tmp_path / "other", *WINDOWS["phone"]) as other:
        open_page(other, serving, f"?job={job}")
        other.wait("document.querySelector('.reviewers input') !== null")
        other.run(
            "const name = document.querySelector('.reviewers input'); name.value = arguments[0];"
            "name.dispatchEvent(new Event('change'))", "Ben <b>B</b>"
        )  # fmt: skip
        browser.wait("document.body.innerText.includes('Ben <b>B</b> is looking at this, too.')")
        other.button("Accept")
        browser.wait("document.querySelector('.review img')?.naturalWidth === 32")
    browser.wait("!document.body.innerText.includes('looking at this, too')")
    assert serving.http.get(f"/v1/videos/{job}/review?reviewer={'x' * 61}").status_code == 400
    serving.http.delete(f"/v1/videos/{job}")
    check_is_sound(browser)


@in_windows("phone")
def test_errors_are_shown_at_their_field_also_below_more(browser: Browser, serving: Serving) -> None:
    open_page(browser, serving)
    type_prompt(browser, "a red circle")
    browser.run(
        "const fields = [...document.querySelectorAll('[role=tabpanel]:not([hidden]) .field')];"
        "fields.find((each) => each.textContent.startsWith('Priority')).querySelector('input').value = '5000'"
    )
    browser.button("Make the video")
    browser.wait("document.activeElement.matches('details[open] input[aria-invalid]')")
    assert "expected -1000 to 1000, got 5000" in browser.text()
    assert "Adapter" not in browser.text(), "this server has none"
    check_is_sound(browser)
