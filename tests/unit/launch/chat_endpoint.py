"""A chat server on this machine with given answers, for tests of its clients."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | None | tuple[int, bytes]  # a text (None: a message without one), or a status and a whole body
SILENCE = (0, b"")


class ChatEndpoint(ThreadingHTTPServer):
    """Returns its answers in order, repeats the last one, and records its requests."""

    daemon_threads = True
    request_queue_size = 128  # connections that a burst may open before they are accepted

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []  # sent with each question
        self.headers: list[dict[str, str]] = []  # all headers of each question, by name in lower case
        self.location: str | None = None  # address of a redirecting answer
        self.ended = threading.Event()
        self.num_left = threading.Semaphore(0)  # released when a client closes its connection during a SILENCE

    @property
    def base_url(self) -> str:
        """Address of the API."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatEndpoint

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.keys.append(self.headers["Authorization"])
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer == SILENCE:
            self._stay_silent()
            return
        status, body = answer if isinstance(answer, tuple) else (200, _completion(answer))
        with contextlib.suppress(ConnectionError):  # the client has closed the connection
            self.send_response(status)
            if self.server.location is not None:
                self.send_header("Location", self.server.location)
            self.send_header("Content-Type", "text/html" if body.startswith(b"<") else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def _stay_silent(self) -> None:
        self.connection.settimeout(0.05)
        while not self.server.ended.is_set():
            with contextlib.suppress(TimeoutError):
                if not self.connection.recv(1):
                    self.server.num_left.release()
                    return

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _completion(text: str | None) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    ).encode()


@contextlib.contextmanager
def chat_endpoint() -> Iterator[ChatEndpoint]:
    """An endpoint that serves until the block ends."""
    with ChatEndpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join(10)
