"""A Hub behind HTTP: repositories, gates, tokens, ranges, and connections that end in the middle.

Large files are sent by another host, as the Hub does: `localhost` instead of `127.0.0.1`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE_NBYTES = 2048
_CHUNK_NBYTES = 1 << 14


@dataclass
class Repository:
    """One model: its files by path, and whether a visitor must have accepted its terms."""

    files: dict[str, bytes]
    is_gated: bool = False
    commit: str = COMMIT
    etags: dict[str, str] = field(default_factory=dict)  # instead of the right ones

    @classmethod
    def of_folder(cls, folder: Path, start: str = "") -> Repository:
        """The files of a folder; `start` precedes their paths."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return cls({start + path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})

    def etag(self, path: str) -> str:
        content = self.files[path]
        if path in self.etags:
            return self.etags[path]
        if len(content) > _LARGE_NBYTES:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def listing(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for path, content in self.files.items():
            entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": self.etag(path)}
            if len(content) > _LARGE_NBYTES:
                entry["lfs"] = {"sha256": self.etag(path), "size": len(content), "pointerSize": 134}
            found.append(entry)
        return found


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    host: str
    range: str | None
    token: str | None


class FakeHub:
    """A context manager that serves repositories.

    Attributes:
        tokens: the repositories whose terms the owner of a token has accepted.
        cut_after: by path of a file, after how many bytes the connection of its next download ends.
        stall_after: by path of a file, after how many bytes its downloads stop until `release` or the end.
        stalled: set when a download stops so.
        asked: every request.
        num_sent: bytes of content sent, by name of the repository and path of a file.
    """

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.tokens: dict[str, set[str]] = {}
        self.cut_after: dict[str, int] = {}
        self.stall_after: dict[str, int] = {}
        self.stalled, self._closing = threading.Event(), threading.Event()
        self.asked: list[Asked] = []
        self.num_sent: dict[str, int] = {}
        self.knows_ranges = True
        self.busy_for: dict[str, int] = {}  # by path of a file, how many questions about it are answered 503
        self.says_everything_is: bytes | None = None  # a hostile Hub: this content under every address
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def downloads(self) -> list[Asked]:
        """Requests for content."""
        return [each for each in self.asked if each.method == "GET" and not each.path.startswith("/api/")]

    def variables(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Environment variables of a process that uses this Hub, with a cache of its own."""
        found = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
        return found if token is None else {**found, "HF_TOKEN": token}

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def release(self) -> None:
        """Let stopped downloads go on to their end."""
        self._closing.set()

    def wait_for_release(self) -> None:
        """Wait, in the thread of a request, for `release` or the end."""
        self.stalled.set()
        self._closing.wait(60)


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        host = self.headers.get("Host", "")
        self.hub.asked.append(Asked(self.command, path, host, self.headers.get("Range"), token))
        if self.hub.says_everything_is is not None:
            self._send_anything(self.hub.says_everything_is)
            return
        if path.startswith("/cdn/"):
            name, file = self._split(path.removeprefix("/cdn/"), "/-/")
            self._send_content(name, file)
            return
        is_api = path.startswith("/api/models/")
        name, file = self._split(
            path.removeprefix("/api/models/" if is_api else "/"), "/revision/" if is_api else "/resolve/"
        )
        if token is not None and token not in self.hub.tokens:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif name not in self.hub.repositories:
            self._refuse(401 if token is None else 404, "RepoNotFound", "Repository not found")
        elif is_api:
            self._send_info(name, file)
        else:
            self._send_file(name, file.partition("/")[2], token)

    def _send_anything(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"abc"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    @staticmethod
    def _split(text: str, mark: str) -> tuple[str, str]:
        before, _, after = text.partition(mark)
        return before, after

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_info(self, name: str, revision: str) -> None:
        repository = self.hub.repositories[name]
        if revision not in ("", "main", repository.commit):
            self._refuse(404, "RevisionNotFound", "Revision not found")
            return
        info = {
            "id": name, "modelId": name, "sha": repository.commit, "private": False, "disabled": False,
            "gated": "auto" if repository.is_gated else False, "downloads": 0, "likes": 0, "tags": [],
            "siblings": repository.listing(),
        }  # fmt: skip
        body = json.dumps(info).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, name: str, file: str, token: str | None) -> None:
        repository = self.hub.repositories[name]
        if repository.is_gated and token is None:
            self._refuse(401, "GatedRepo", f"Access to model {name} is restricted. Please log in.")
            return
        if repository.is_gated and name not in self.hub.tokens.get(token or "", set()):
            self._refuse(403, "GatedRepo", f"Access to model {name} is restricted: you are not in the list.")
            return
        if self.command == "HEAD" and self.hub.busy_for.get(file, 0):
            self.hub.busy_for[file] -= 1
            self._refuse(503, "", "Busy")
            return
        if file not in repository.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        content = repository.files[file]
        if len(content) <= _LARGE_NBYTES:
            self._send_content(name, file)
            return
        self.send_response(302)
        self._describe(repository, file)
        self.send_header("X-Linked-Etag", f'"{repository.etag(file)}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Location", f"http://localhost:{self.hub.port}/cdn/{name}/-/{file}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _describe(self, repository: Repository, file: str) -> None:
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("ETag", f'"{repository.etag(file)}"')

    def _send_content(self, name: str, file: str) -> None:
        hub, repository = self.hub, self.hub.repositories[name]
        content, start = repository.files[file], 0
        wanted = self.headers.get("Range")
        if wanted is not None and hub.knows_ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first)
            end = min(int(last) + 1 if last else len(content), len(content))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        else:
            end = len(content)
            self.send_response(200)
        self._describe(repository, file)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "GET":
            self._send_bytes(name, file, content[start:end])

    def _send_bytes(self, name: str, file: str, content: bytes) -> None:
        hub = self.hub
        cut, stall = hub.cut_after.pop(file, len(content)), hub.stall_after.get(file, len(content))
        try:
            self._write(f"{name}/{file}", content[: min(cut, stall)])
            if stall < min(cut, len(content)):
                self.wfile.flush()
                hub.wait_for_release()
                self._write(f"{name}/{file}", content[stall:cut])
        except OSError:  # the client has died
            self.close_connection = True
        if cut < len(content):
            self.close_connection = True

    def _write(self, path: str, content: bytes) -> None:
        for start in range(0, len(content), _CHUNK_NBYTES):
            piece = content[start : start + _CHUNK_NBYTES]
            self.wfile.write(piece)
            with self.hub.lock:
                self.hub.num_sent[path] = self.hub.num_sent.get(path, 0) + len(piece)
