"""Downloads of generators (presets): resumed where they broke off, and checked before they get their name."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from sisug import __version__
from sisug.common.atomic_file import disk_is_full
from sisug.errors import CheckpointError

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
LOCAL = ("localhost", "127.0.0.1", "::1")
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""HTTP answers that another try may better."""

PAGES = ("text/html", "application/xhtml+xml", "application/json", "application/xml", "text/xml")
"""Content types of pages and messages; checkpoints have none of them."""

Report = Callable[[int, int | None], None]
"""Takes the bytes received and the bytes in all, where that is known."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    timeout: float = 30.0,
    pauses: tuple[float, ...] = (2.0, 10.0),
) -> Path:
    """Fetch a file, unless it is there already.

    The bytes go to `path` with `.part` appended, and stay there when the connection breaks, so that the next try or run
    goes on from them. Only what is whole, by its length and by `sha256`, gets its name. Processes that want the same
    file wait for the first.

    Args:
        url: https address (http on this machine).
        path: the file to write; its folder is made if need be.
        sha256: expected digest, in hexadecimal; None checks the length alone.
        timeout: seconds of silence after which a connection counts as broken.
        pauses: seconds between tries; there is one try more than pauses.

    Returns:
        `path`.

    Raises:
        CheckpointError: it could not be fetched, or is not what was expected; says what to fetch by hand and where to
            put it.
    """
    fetch = _Fetch(url, path, sha256, timeout)
    if not _is_allowed(url):
        raise fetch.failed("sisug downloads over https only")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not path.is_file():
                fetch.run(pauses)
    except OSError as error:
        if disk_is_full(error):
            raise fetch.failed("the disk is full", f"free some space and start again{fetch.rest}") from error
        raise fetch.failed(
            f"{error.filename or path.parent}: {error.strerror or error}",
            "choose another cache folder with the environment variable SISUG_CACHE",
        ) from error
    return path


class _Broken(Exception):
    """The connection failed in a way that another try may better."""


class _Fetch:
    """One download; the arguments are those of `download`."""

    def __init__(self, url: str, path: Path, sha256: str | None, timeout: float) -> None:
        self.url, self.path, self.sha256, self.timeout = url, path, sha256, timeout
        self.part = path.with_name(path.name + ".part")
        # What the server calls this version of the file: the rest of another one must not be appended.
        self.version = path.with_name(path.name + ".part.version")
        self.open = urllib.request.build_opener(_SafeRedirects()).open

    @property
    def rest(self) -> str:
        return f", which goes on from where {self.part.name} ends" if self.part.is_file() else ""

    def failed(self, cause: str, first: str = "") -> CheckpointError:
        """The error for the user; `first` is a remedy to try before those that always help."""
        return CheckpointError(
            f"{self.path.name} could not be downloaded from {self.url}",
            cause,
            f"{first + '; or ' if first else ''}fetch {self.url} by hand and put it at {self.path}; or name a "
            "generator of your own with --model.init_args.generator FILE",
        )

    def run(self, pauses: tuple[float, ...]) -> None:
        logger.info("downloading %s from %s to %s", self.path.name, self.url, self.path.parent)
        with _progress_bar(self.path.name) as report:
            for pause in (*pauses, None):
                try:
                    self._try(report)
                    break
                except _Broken as broken:
                    if pause is None:
                        raise self.failed(
                            f"{broken}, {len(pauses) + 1} times in all",
                            f"start again when the connection is better{self.rest}",
                        ) from broken
                    logger.info("download of %s: %s; trying again in %g s", self.path.name, broken, pause)
                    time.sleep(pause)
        self._check()
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        self.part.replace(self.path)
        self.version.unlink(missing_ok=True)

    def _try(self, report: Report) -> None:
        """Receive what is missing.

        Raises:
            _Broken: another try may better it; what came is in `part`.
            CheckpointError: none will.
        """
        have = self.part.stat().st_size if self.part.is_file() else 0
        try:
            response = self._request(have)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and have and _total(error.headers) == have:
                    return  # all of it came the last time, but for the rename
                if error.code == 416 and have:
                    self._discard()
                    raise _Broken("the beginning of an earlier download does not belong to this file") from error
                if error.code in PASSING:
                    raise _Broken(f"the server answered {error.code} ({error.reason})") from error
                raise self.failed(f"the server answered {error.code} ({error.reason})") from error
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            raise _Broken(_words(error)) from error
        with response:
            if response.status != 206:
                have = 0
            elif _first(response.headers) != have:
                self._discard()
                raise _Broken("the server sent another part of the file than was asked for")
            self._receive(response, have, report)

    def _request(self, have: int) -> Any:
        headers = {"User-Agent": f"sisug/{__version__}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.version.is_file():
                headers["If-Range"] = self.version.read_text()
        return self.open(urllib.request.Request(self.url, headers=headers), timeout=self.timeout)

    def _receive(self, response: Any, have: int, report: Report) -> None:
        total = _total(response.headers) if have else _length(response.headers)
        block = self._read(response)
        kind = response.headers.get_content_type()
        if not have and (kind in PAGES or _is_page(block)):
            raise self.failed(
                f"the server sent a page ({kind}) in its place, such as a login, a warning or an error",
                "see in a browser what the page wants",
            )
        if total is None and self.sha256 is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise self.failed("the server does not say how long the file is, so that nobody can tell when it is whole")
        free = shutil.disk_usage(self.part.parent).free
        if total is not None and total - have > free:
            raise self.failed(
                f"it takes {(total - have) / 1e6:,.0f} MB, and {self.part.parent} has {free / 1e6:,.0f} MB left",
                "free some space, or choose another cache folder with the environment variable SISUG_CACHE",
            )
        if not have:
            self._discard()
            self._note_version(response.headers)
        with self.part.open("ab") as file:
            while block:
                file.write(block)
                have += len(block)
                report(have, total)
                file.flush()  # kept, whatever becomes of this process
                block = self._read(response)
        if total is not None and have != total:
            raise _Broken(f"the connection ended after {have:,} of {total:,} bytes")

    def _read(self, response: Any) -> bytes:
        """What has arrived; nothing at the end."""
        try:
            block: bytes = response.read1(BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(_words(error)) from error
        return block

    def _note_version(self, headers: Message) -> None:
        etag, date = headers.get("ETag"), headers.get("Last-Modified")
        version = etag if etag and not etag.startswith("W/") else date  # a weak one does not vouch for every byte
        if version:
            self.version.write_text(version)

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)

    def _check(self) -> None:
        if self.sha256 is None:
            return
        with self.part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256.lower():
            self._discard()
            raise self.failed(
                f"what came has SHA-256 {found}, expected was {self.sha256.lower()}: it was damaged on its way, or the "
                "publisher has another file there now. It was deleted",
                "start again, from the beginning",
            )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to where `download` itself would go, and not from the net to this machine."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not _is_allowed(newurl) or (_is_local(newurl) and not _is_local(req.full_url)):
            raise urllib.error.HTTPError(req.full_url, code, f"redirected to {newurl}, not over https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in LOCAL


def _is_allowed(url: str) -> bool:
    scheme = urlsplit(url).scheme
    return scheme == "https" or (scheme == "http" and _is_local(url))


def _is_page(block: bytes) -> bool:
    return block[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))


def _length(headers: Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _range(headers: Message) -> re.Match[str] | None:
    return re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip())


def _first(headers: Message) -> int | None:
    found = _range(headers)
    return int(found[1]) if found and found[1] else None


def _total(headers: Message) -> int | None:
    """Length of the whole file, from the answer to a request for a part."""
    found = _range(headers)
    return int(found[2]) if found and found[2] != "*" else None


def _words(error: Exception) -> str:
    """What went wrong with a connection, for people."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "the server fell silent"
    return f"the connection failed ({str(reason) or type(reason).__name__})"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Processes of a run, or several runs, must not write the same file at once: one fetches, the others wait."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process is downloading %s: waiting for it", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _progress_bar(name: str) -> Iterator[Report]:
    """A bar on terminals; elsewhere nothing, for it would fill log files."""
    if not sys.stderr.isatty():
        yield lambda received, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        yield lambda received, total: progress.update(task, completed=received, total=total)
