"""The files of a page: HTML, style, scripts and examples, read once at start, each at a fixed path.

`mora serve` and `mora review --web` each have one page, at `/page`. Its files contain no data of a run and no secret,
so the guard sends them without a token (`PageFiles.pages`, `PageFiles.assets`). The scripts fetch the data with the
token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

PAGE = "/page"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "mp4": "video/mp4",
}
_SHARED = ("page.css", "icon.svg", "api.js", "elements.js", "media_view.js", "poll.js", "token.js", "token_form.js")


class PageFiles:
    """The files of one page.

    Args:
        shell: name of the HTML file, served at `/page` and `/page/`; `/` redirects there.
        names: names of the page's own files, each served at `/page/NAME` like the files that all pages share.
    """

    def __init__(self, shell: str, names: Sequence[str]) -> None:
        folder = files("mora_launch.web") / "assets"
        self._shell = (shell, (folder / shell).read_bytes())
        self._assets = {f"{PAGE}/{name}": (name, (folder / name).read_bytes()) for name in (*_SHARED, *names)}

    @property
    def pages(self) -> frozenset[str]:
        """Addresses that a user opens."""
        return frozenset(("/", PAGE, f"{PAGE}/"))

    @property
    def assets(self) -> frozenset[str]:
        """Addresses that the page itself loads."""
        return frozenset(self._assets)

    @property
    def paths(self) -> frozenset[str]:
        """All addresses that need no token."""
        return self.pages | self.assets

    def routes(self) -> APIRouter:
        """Return one route for each file, so that the path of a request is never looked up on disk."""
        router = APIRouter()
        router.add_api_route("/", _to_page, methods=["GET", "HEAD"], include_in_schema=False)
        for path, (name, content) in {**self._assets, PAGE: self._shell, f"{PAGE}/": self._shell}.items():
            router.add_api_route(path, _giving(name, content), methods=["GET", "HEAD"], include_in_schema=False)
        return router


async def _to_page() -> Response:
    return RedirectResponse(PAGE)


def _giving(name: str, content: bytes) -> Callable[[], Awaitable[Response]]:
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]

    async def give() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return give
