"""A headless Chromium, driven through chromedriver's own interface (WebDriver: JSON over HTTP)."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
DEADLINE_S = 120.0
_STARTED = re.compile(rb"started successfully on port (\d+)")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # how WebDriver marks a reference to an element


class Browser:
    """One window.

    Args:
        session: address of the WebDriver session.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self._http = httpx.Client(timeout=DEADLINE_S)

    def open(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        self._say("url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """The value that a function body returns in the page; waits for promises."""
        return self._say("execute/sync", {"script": script, "args": arguments})

    def wait(self, condition: str, *arguments: object) -> Any:
        """Wait for the first true value of an expression in the page and return it."""
        deadline = time.monotonic() + DEADLINE_S
        while not (value := self.run(f"return {condition}", *arguments)):
            assert time.monotonic() < deadline, (condition, arguments, self.text())
            time.sleep(0.05)
        return value

    def text(self) -> str:
        """All visible text of the page."""
        return str(self.run("return document.body.innerText"))

    def button(self, label: str) -> None:
        """Wait for a visible button with this label, and press it."""
        self._say(f"element/{self._visible_button(label)[_ELEMENT]}/click", {})

    def keys(self, text: str) -> None:
        """Type into the element with the focus."""
        element = self.run("return document.activeElement")[_ELEMENT]
        self._say(f"element/{element}/value", {"text": text})

    def press(self, key: str) -> None:
        """Press one key, whichever element has the focus; unlike `keys`, also on an input of a file."""
        strokes = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._say("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def picture(self) -> bytes:
        """The window as a PNG."""
        answer = self._http.get(f"{self._session}/screenshot")
        return base64.b64decode(answer.json()["value"])

    def complaints(self) -> list[str]:
        """Errors on the browser's console since the last call: failed scripts, refused content."""
        entries = self._say("se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def close(self) -> None:
        """Close the window."""
        self._http.delete(self._session)
        self._http.close()

    def _visible_button(self, label: str) -> dict[str, str]:
        said = "[...each.childNodes].filter(node => node.ariaHidden !== 'true').map(node => node.textContent).join('')"
        is_it = f"each.checkVisibility() && {said} === arguments[0]"
        find = f"[...document.querySelectorAll('button')].find(each => {is_it})"
        return dict(self.wait(find, label))

    def _say(self, command: str, body: dict[str, Any]) -> Any:
        answer = self._http.post(f"{self._session}/{command}", json=body)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value


@contextmanager
def started_browser(folder: Path, width: int, height: int, *arguments: str) -> Iterator[Browser]:
    """A window of this size, whose profile is in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert driver.stdout is not None
        started = next(found for line in driver.stdout if (found := _STARTED.search(line)))
        url = f"http://127.0.0.1:{int(started[1])}/session"
        options = {
            "args": [
                "--headless=new",
                "--no-sandbox",
                "--disable-dev-shm-usage",
                f"--user-data-dir={folder}",
                *arguments,
            ],
            "mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1}},
        }
        capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "SEVERE"}}
        answer = httpx.post(url, json={"capabilities": {"alwaysMatch": capabilities}}, timeout=DEADLINE_S)
        assert answer.status_code == 200, json.dumps(answer.json())
        browser = Browser(f"{url}/{answer.json()['value']['sessionId']}")
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.communicate(timeout=30)
