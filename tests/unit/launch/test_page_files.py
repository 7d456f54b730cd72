"""The files of our pages: which exist, how they are served, and what their scripts never do."""

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from mora_launch.rounds.review.page import PAGE_FILES as ROUNDS_FILES
from mora_launch.serving.http.app import PAGE_FILES as SERVE_FILES
from mora_launch.web.page_files import CONTENT_SECURITY_POLICY, PageFiles
from starlette.testclient import TestClient

PAGES = {"serve.html": SERVE_FILES, "rounds.html": ROUNDS_FILES}
ASSETS = Path(__file__).resolve().parents[3] / "launch" / "mora_launch" / "web" / "assets"
KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "mp4": "video/mp4",
}
SCRIPTS = sorted(ASSETS.glob("*.js"))


def client_of(shell: str) -> tuple[TestClient, PageFiles]:
    page = PageFiles(shell, PAGES[shell])
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(page.routes())
    return TestClient(app, follow_redirects=False), page


@pytest.mark.parametrize("shell", PAGES)
def test_every_file_has_one_address_its_type_and_a_policy(shell: str) -> None:
    client, page = client_of(shell)
    assert client.get("/").headers["location"] == "/page"
    for path in page.paths - {"/"}:
        answer = client.get(path)
        name = shell if path in ("/page", "/page/") else path.removeprefix("/page/")
        assert answer.content == (ASSETS / name).read_bytes()
        assert answer.headers["content-type"] == KINDS[name.rpartition(".")[2]]
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["cache-control"] == "no-cache"
        assert client.head(path).status_code == 200
        assert client.post(path).status_code == 405


@pytest.mark.parametrize("shell", PAGES)
def test_no_other_file_is_served(shell: str) -> None:
    client, page = client_of(shell)
    others = {f"/page/{each}" for each in (*SERVE_FILES, *ROUNDS_FILES, *PAGES)} - page.paths
    for path in (
        *others, "/page/page_files.py", "/page/../guard.py", "/page/%2e%2e/guard.py", "/page//page.css",
        "/page/..%2fguard.py", "/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/PAGE.CSS", "/page/page.css%00",
    ):  # fmt: skip
        assert client.get(path).status_code == 404, path


@pytest.mark.parametrize("shell", PAGES)
def test_a_page_names_only_files_that_it_serves(shell: str) -> None:
    page = PageFiles(shell, PAGES[shell])
    for path in page.pages | page.assets:
        name = shell if path in page.pages else path.removeprefix("/page/")
        if name.endswith((".html", ".js")):
            text = (ASSETS / name).read_text(encoding="utf-8")
            named = re.findall(r'from "\./([^"]+)"', text) + re.findall(r'(?:src|href)="/page/([^"]+)"', text)
            assert {f"/page/{each}" for each in named} <= page.assets, name


def test_every_file_in_the_folder_is_served_by_a_page() -> None:
    given = {path.removeprefix("/page/") for shell in PAGES for path in PageFiles(shell, PAGES[shell]).assets}
    assert {path.name for path in ASSETS.iterdir()} == given | set(PAGES)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_never_read_markup_run_text_or_set_a_cookie(path: Path) -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|parseFromString|createContextualFragment|DOMParser|srcdoc|"
        r"document\.write|\beval\b|new Function|javascript:|document\.cookie|setTimeout\(\s*[\"'`]|\bimport\("
    )
    found = re.search(forbidden, path.read_text(encoding="utf-8"))
    assert found is None, found


@pytest.mark.parametrize("path", sorted(ASSETS.glob("*.*s*")), ids=lambda path: path.name)
def test_files_load_nothing_from_elsewhere_and_have_nothing_inline(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"')]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize("shell", PAGES)
def test_shells_have_no_inline_script_style_or_form(shell: str) -> None:
    text = (ASSETS / shell).read_text(encoding="utf-8")
    assert re.search(r"<style|style=|\son[a-z]+=|<form|<iframe|<script(?![^>]*src=)", text) is None
