"""Takes the pictures of the page in docs/ by a fixed rule, in a real browser.

    .venvs/control/bin/python -m benchmarks.page_pictures docs

The rule: `./mora serve configs/shapes.yaml` with its tiny pre-trained models; two windows, 1200 x 900 and 360 x 780
pixels; the first example of every tab, without enhancement and with its number as the seed (on the phone its form,
then its result); then a review that waits at the picture, a comparison of the first two videos, and the gallery. All
are taken, good or bad. It writes `page-desktop.webp` and `page-phone.webp`: contact sheets in this order.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mora_launch.environments.venvs import ROOT
from PIL import Image

from tests.integration.serving.browser import MISSING, Browser, started_browser
from tests.integration.serving.conftest import Serving, start, stop
from tests.integration.serving.page import check_box, open_page, shown_job, type_prompt, wait_video

CONFIG = ROOT / "configs" / "shapes.yaml"
WINDOWS = {"desktop": (1200, 900), "phone": (360, 780)}
NUM_COLUMNS = {"desktop": 3, "phone": 6}
SHEET_WIDTH = 1800
MAX_NBYTES = 300_000
GAP = 12
_PANEL = "document.querySelector('[role=tabpanel]:not([hidden])')"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG, help="another one, to try a change of the page")
    options = parser.parse_args(arguments)
    if MISSING:
        raise SystemExit(f"needs {' and '.join(MISSING)} on PATH (Debian: chromium-driver)")
    with tempfile.TemporaryDirectory(prefix="mora-page-") as place, served(options.config, Path(place)) as serving:
        for name, size in WINDOWS.items():
            with started_browser(Path(place) / name, *size) as browser:
                pictures = list(taken(browser, serving))
            (options.folder / f"page-{name}.webp").write_bytes(compact(sheet(pictures, NUM_COLUMNS[name])))


@contextmanager
def served(config: Path, place: Path) -> Iterator[Serving]:
    """A server of the configuration, whose models exist (`./mora env build`, then one `./mora generate`)."""
    serving = start(place / "serving", config=config)
    try:
        yield serving
    finally:
        stop(serving)


def taken(browser: Browser, serving: Serving) -> Iterator[Image.Image]:
    """All pictures of one window, in order."""
    tasks = serving.http.get("/v1/tasks").json()["data"]
    for number, task in enumerate(tasks):
        open_page(browser, serving)
        browser.run(f"document.getElementById('tab-{task['id']}').click()")
        set_field(browser, "Seed", str(number))
        if "enhance" in task["fields"]:
            check_box(browser, "Let the server enhance the prompt")
        browser.button(task["examples"][0]["prompt"])
        shown_job(browser)
        wait_video(browser)
        browser.wait("[...document.querySelectorAll('.stage img')].every((each) => each.naturalWidth > 0)")
        yield shot(browser, "document.querySelector('header')")
        if is_narrow(browser):
            yield shot(browser, "document.getElementById('job')")
    yield from pictured(browser, serving, len(tasks))
    yield from reviewed(browser, serving)
    yield from compared(browser, serving)


def pictured(browser: Browser, serving: Serving, number: int) -> Iterator[Image.Image]:
    """The tab for pictures, and a picture."""
    open_page(browser, serving)
    browser.run("document.getElementById('tab-picture').click()")
    set_field(browser, "Seed", str(number))
    check_box(browser, "Let the server enhance the prompt")
    browser.run(f"{_PANEL}.querySelector('.example').click()")
    browser.wait("document.querySelector('.pictures img')?.naturalWidth > 0")
    yield shot(browser, "document.querySelector('header')")
    if is_narrow(browser):
        yield shot(browser, "document.getElementById('job')")


def reviewed(browser: Browser, serving: Serving) -> Iterator[Image.Image]:
    """A review that waits at the picture."""
    browser.run("sessionStorage.setItem('mora-reviewer', 'Ann')")
    open_page(browser, serving)
    type_prompt(browser, "a yellow square moves down")
    set_field(browser, "Seed", "6")
    check_box(browser, "Let the server enhance the prompt")
    check_box(browser, "Review every stage")
    browser.button("Make the video")
    job = shown_job(browser)
    browser.wait("document.querySelector('.review img')?.naturalWidth > 0")
    yield shot(browser, "document.getElementById('job')" if is_narrow(browser) else "document.querySelector('header')")
    serving.http.delete(f"/v1/videos/{job}")


def compared(browser: Browser, serving: Serving) -> Iterator[Image.Image]:
    """Two videos side by side, then the gallery."""
    open_page(browser, serving)
    browser.wait("document.querySelectorAll('.card img').length >= 6")
    presses = "[...document.querySelectorAll('.card [aria-pressed]')].slice(-2).forEach((each) => each.click())"
    browser.run(presses)
    browser.wait("[...document.querySelectorAll('dialog video')].filter((each) => each.readyState >= 2).length === 2")
    yield shot(browser, "document.body")
    browser.button("Close")
    browser.wait("[...document.querySelectorAll('.card img')].every((each) => each.naturalWidth > 0)")
    yield shot(browser, "document.getElementById('gallery')")


def is_narrow(browser: Browser) -> bool:
    """Whether the job is below the form."""
    return bool(browser.run("return innerWidth < 600"))


def set_field(browser: Browser, label: str, value: str) -> None:
    """Type a number into the field with this label of the shown form."""
    of_panel = f"[...{_PANEL}.querySelectorAll('.field')]"
    field = f"{of_panel}.find((each) => each.textContent.startsWith(arguments[0])).querySelector('input')"
    browser.run(f"{field}.value = arguments[1]", label, value)


def shot(browser: Browser, element: str) -> Image.Image:
    """The window, scrolled so that an element begins at its upper edge."""
    browser.run(f"{element}.scrollIntoView({{ block: 'start' }})")
    return Image.open(io.BytesIO(browser.picture())).convert("RGB")


def sheet(pictures: Sequence[Image.Image], num_columns: int) -> Image.Image:
    """All pictures in rows, scaled to the width of the sheet."""
    width = (SHEET_WIDTH - GAP * (num_columns + 1)) // num_columns
    height = round(width * pictures[0].height / pictures[0].width)
    num_rows = -(-len(pictures) // num_columns)
    whole = Image.new("RGB", (SHEET_WIDTH, num_rows * (height + GAP) + GAP), "#8a929a")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, num_columns)
        place = (GAP + column * (width + GAP), GAP + row * (height + GAP))
        whole.paste(picture.resize((width, height), Image.Resampling.LANCZOS), place)
    return whole


def compact(picture: Image.Image) -> bytes:
    """The picture as WebP, in the best quality that fits the limit."""
    return next(made for quality in range(90, 20, -5) if len(made := webp(picture, quality)) <= MAX_NBYTES)


def webp(picture: Image.Image, quality: int) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, "WEBP", quality=quality, method=6)
    return sink.getvalue()


if __name__ == "__main__":
    main()
