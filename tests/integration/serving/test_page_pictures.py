"""The tab of the page that makes pictures, in a real browser."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from .browser import MISSING, Browser
from .conftest import Serving, until
from .page import (
    CONTROL,
    ENTER,
    RIGHT,
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
PANEL = "document.querySelector('[role=tabpanel]:not([hidden])')"
PIXELS = """
const canvas = new OffscreenCanvas(32, 32).getContext("2d");
canvas.drawImage(document.querySelectorAll(".pictures img")[arguments[0]], 0, 0);
return [...canvas.getImageData(0, 0, 32, 32).data];
"""


def set_field(browser: Browser, label: str, value: str) -> None:
    """Give the field with this label of the shown form a value."""
    field = f"[...{PANEL}.querySelectorAll('.field')].find((each) => each.textContent.startsWith(arguments[0]))"
    browser.run(f"{field}.querySelector('input, select, textarea').value = arguments[1]", label, value)


def wait_pictures(browser: Browser, count: int) -> None:
    """Wait until this number of pictures is shown, all of the tiny models' size."""
    loaded = "[...document.querySelectorAll('#job .pictures img')].filter((each) => each.naturalWidth === 32).length"
    browser.wait(f"{loaded} === arguments[0]", count)


def pressed(browser: Browser, label: str) -> None:
    """Press the first button with this label below the pictures."""
    browser.run(
        "const buttons = [...document.querySelectorAll('.pictures button')];"
        "const found = buttons.find((each) => each.textContent === arguments[0]); found.focus(); found.click()",
        label,
    )


@in_windows("phone")
def test_pictures_are_made_and_are_those_of_the_endpoint(browser: Browser, serving: Serving) -> None:
    open_page(browser, serving, "?job=none")
    browser.run("document.getElementById('tab-picture').click()")
    assert "Review" not in browser.run(f"return {PANEL}.innerText"), "pictures have no review"
    type_prompt(browser, "a red circle")
    set_field(browser, "Pictures", "3")
    set_field(browser, "Seed", "5")
    check_box(browser, "Let the server enhance the prompt")
    browser.keys(CONTROL + ENTER)
    wait_pictures(browser, 3)
    assert browser.run("return location.search") == "", "the job in the address is no longer shown"
    expected = serving.images(prompt="a red circle", seed=5, n=3).json()["data"]
    for number, datum in enumerate(expected):
        picture = Image.open(io.BytesIO(base64.b64decode(datum["b64_json"]))).convert("RGBA")
        assert bytes(browser.run(PIXELS, number)) == picture.tobytes()
    shown = browser.run("return [...document.querySelectorAll('.pictures figcaption')].map((each) => each.textContent)")
    assert shown == ["seed 5", "seed 6", "seed 7"]
    check_is_sound(browser)


@in_windows("desk")
def test_a_picture_is_made_animated_and_made_again_by_keyboard(browser: Browser, serving: Serving) -> None:
    open_page(browser, serving)
    tab_to(browser, "Text to video")
    for _ in range(6):
        browser.press(RIGHT)
    tab_to(browser, "a red circle")
    browser.press(ENTER)
    wait_pictures(browser, 1)
    assert "Done, from the prompt “" in browser.text(), "the prompt was enhanced"
    browser.run("HTMLAnchorElement.prototype.click = function () { window.saved = [this.download, this.protocol]; }")
    pressed(browser, "Download")
    seed = browser.run("return document.querySelector('.pictures figcaption').textContent.replace('seed ', '')")
    assert browser.run("return window.saved") == [f"picture-{seed}.png", "blob:"]
    tab_to(browser, "Animate this")
    browser.press(ENTER)
    browser.wait("document.activeElement.matches('#panel-image_to_video textarea')")
    assert browser.run(f"return {PANEL}.querySelector('input[type=file]').files[0].name") == "a red circle"
    browser.keys("it moves left" + CONTROL + ENTER)
    job = shown_job(browser)
    wait_video(browser)
    assert serving.finished(job)["task"] == "image_to_video"
    assert not browser.run("return document.querySelector('.pictures').checkVisibility()")
    browser.run("history.back()")
    browser.wait("document.querySelector('.pictures img')?.checkVisibility()")
    pressed(browser, "Again")
    assert browser.run("return document.activeElement.textContent") == "Make the picture"
    assert browser.run(f"return {PANEL}.querySelector('textarea').value") == "a red circle"
    check_is_sound(browser)


@in_windows("desk")
def test_a_refused_picture_says_so_at_its_field_and_a_long_one_can_be_cancelled(
    browser: Browser, serving: Serving
) -> None:
    open_page(browser, serving)
    browser.run("document.getElementById('tab-picture').click()")
    browser.button("Make the picture")
    browser.wait("document.activeElement.matches('#panel-picture textarea[aria-invalid]')")
    type_prompt(browser, "a red circle")
    set_field(browser, "Seed", "-1")
    browser.button("Make the picture")
    browser.wait("document.activeElement.matches('#panel-picture input[type=number][aria-invalid]')")
    assert "expected 0 to 2147483647, got -1" in browser.text()
    set_field(browser, "Seed", "")
    browser.run(f"{PANEL}.querySelector('details').open = true")
    set_field(browser, "Steps", "1000")
    cancelled = serving.metric("mora_cancelled_total")
    browser.button("Make the picture")
    browser.button("Cancel")
    browser.wait("document.querySelector('#job .job:not([hidden]) .status').textContent === 'Cancelled'")
    until(lambda: serving.metric("mora_cancelled_total") > cancelled, "the server stops")
    browser.wait(f"{PANEL}.querySelector('.primary').getAttribute('aria-disabled') === null")
    assert browser.run("return document.querySelector('#panel-picture [aria-invalid]')") is None
    check_is_sound(browser)
