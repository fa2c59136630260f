"""A web server of the tests on this machine, with the bad habits that real ones have."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """Serves `content` at every path; the other fields say what goes wrong.

    Args:
        content: the file.
        ranges: answers requests for a part of it.
        etag: what it calls this version.
        breaks: bytes after which each of the next connections ends; taken from the front, then none breaks.
        answers: status codes of the next answers; taken from the front, then all is well.
        silent: seconds without a byte, in the next answer.
        headers: added to answers with content, or replacing those.
        length: whether it says how long the answer is.
        redirect: where it sends everybody.
        pace: seconds between two blocks.
    """

    content: bytes
    ranges: bool = True
    etag: str | None = '"1"'
    breaks: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    silent: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    length: bool = True
    redirect: str | None = None
    pace: float = 0.0
    asked: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/models/file.pkl"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append({name.lower(): value for name, value in request.headers.items()})
        if self.redirect is not None:
            request.send_response(302)
            request.send_header("Location", self.redirect)
            request.end_headers()
            return
        if self.answers:
            request.send_error(self.answers.pop(0))
            return
        asked = request.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if request.headers.get("If-Range", self.etag) != self.etag:
            start = 0
        size = len(self.content)
        headers: dict[str, Any] = {"Content-Type": "application/octet-stream"}
        if start >= size:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{size}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        if self.length:
            headers["Content-Length"] = size - start
        if self.etag is not None:
            headers["ETag"] = self.etag
        for name, value in (headers | self.headers).items():
            request.send_header(name, str(value))
        request.end_headers()
        silent, self.silent = self.silent, 0.0
        time.sleep(silent)
        end = min(size, start + self.breaks.pop(0)) if self.breaks else size
        step = 1 << 14 if self.pace else end - start
        for at in range(start, end, step or 1):
            request.wfile.write(self.content[at : min(at + step, end)])
            self.sent += min(at + step, end) - at
            time.sleep(self.pace)


@contextmanager
def serve(server: FileServer) -> Iterator[FileServer]:
    """The server, as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the other side gave up
                server.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        server.port = httpd.server_address[1]
        thread = threading.Thread(target=lambda: httpd.serve_forever(poll_interval=0.01), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            httpd.shutdown()
            thread.join()
