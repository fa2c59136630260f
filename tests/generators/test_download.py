"""Downloads, from a server on this machine: whole or resumed, checked, and refused with words that help."""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from generators.file_server import FileServer, serve

from sisug.errors import CheckpointError
from sisug.generators.download import download

CONTENT = np.random.default_rng(0).bytes(300_000)
QUICK: dict[str, Any] = {"timeout": 5.0, "pauses": (0.0, 0.0)}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve(FileServer(CONTENT)) as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "generators" / "file.pkl"


def part_of(path: Path) -> Path:
    return path.with_name("file.pkl.part")


def left_beside(path: Path) -> set[str]:
    return {other.name for other in path.parent.iterdir()} - {"file.pkl.lock"}


def refusal(server: FileServer, path: Path, **options: Any) -> CheckpointError:
    """The error, after the checks that hold for each: what to fetch, where to put it, and the way around."""
    with pytest.raises(CheckpointError) as caught:
        download(server.url, path, **QUICK | options)
    for needed in (server.url, str(path), "--model.init_args.generator FILE"):
        assert needed in caught.value.remedy
    assert not path.exists()
    return caught.value


class Case(NamedTuple):
    """A server's habit and what must have been asked of it."""

    habit: dict[str, Any]
    ranges: list[str | None]


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        Case({}, [None]),
        Case({"etag": None}, [None]),
        Case({"headers": {"Content-Type": "text/plain"}}, [None]),  # what some servers call files they do not know
        Case({"breaks": [100_000]}, [None, "bytes=100000-"]),
        Case({"breaks": [100_000], "etag": None}, [None, "bytes=100000-"]),
        Case({"breaks": [100_000], "etag": 'W/"weak"'}, [None, "bytes=100000-"]),
        Case({"breaks": [100_000, 50_000]}, [None, "bytes=100000-", "bytes=150000-"]),
        Case({"breaks": [0]}, [None, None]),
        Case({"breaks": [100_000], "ranges": False}, [None, "bytes=100000-"]),  # sends all of it again
        Case({"answers": [503, 429]}, [None, None, None]),
    ],
)
def test_the_file_arrives_whole(server: FileServer, path: Path, case: Case, checksum: bool) -> None:
    for name, value in case.habit.items():
        setattr(server, name, list(value) if isinstance(value, list) else value)
    assert download(server.url, path, sha256=server.sha256.upper() if checksum else None, **QUICK) == path
    assert path.read_bytes() == CONTENT
    assert left_beside(path) == {"file.pkl"}
    assert [asked.get("range") for asked in server.asked] == case.ranges
    assert not any(asked.get("if-range", "").startswith("W/") for asked in server.asked)  # HTTP forbids it


def test_a_file_that_is_there_is_not_asked_for(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"put there by hand")
    assert download(server.url, path, sha256=server.sha256) == path
    assert path.read_bytes() == b"put there by hand"
    assert server.asked == []


def test_a_later_run_goes_on(server: FileServer, path: Path) -> None:
    server.breaks = [100_000, 0, 0]
    error = refusal(server, path)
    assert "the connection ended after 100,000 of 300,000 bytes, 3 times in all" in error.cause
    assert "goes on from where file.pkl.part ends" in error.remedy
    assert part_of(path).read_bytes() == CONTENT[:100_000]
    before = server.sent
    download(server.url, path, sha256=server.sha256, **QUICK)
    assert path.read_bytes() == CONTENT
    assert server.sent - before == 200_000


def test_the_rest_of_another_version_is_not_appended(server: FileServer, path: Path) -> None:
    server.breaks = [100_000, 0, 0]
    refusal(server, path)
    server.content, server.etag = CONTENT[::-1], '"2"'
    download(server.url, path, **QUICK)
    assert path.read_bytes() == CONTENT[::-1]


def test_a_part_that_is_complete_only_gets_its_name(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT)
    download(server.url, path, **QUICK)
    assert path.read_bytes() == CONTENT
    assert server.sent == 0


@pytest.mark.parametrize("habit", [{}, {"headers": {"Content-Range": "bytes 7-299999/300000"}}])
def test_a_part_that_does_not_belong_is_dropped(server: FileServer, path: Path, habit: dict[str, Any]) -> None:
    path.parent.mkdir()
    part_of(path).write_bytes(b"x" * (100 if habit else len(CONTENT) + 1))
    server.headers = habit.get("headers", {})
    download(server.url, path, **QUICK)
    assert path.read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_deleted(server: FileServer, path: Path) -> None:
    error = refusal(server, path, sha256="0" * 64)
    assert server.sha256 in error.cause
    assert "0" * 64 in error.cause
    assert left_beside(path) == set()
    assert len(server.asked) == 1


def test_a_damaged_part_is_found_by_the_checksum_and_the_next_run_starts_over(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    part_of(path).write_bytes(b"x" * 1000)
    assert "was damaged on its way" in refusal(server, path, sha256=server.sha256).cause
    download(server.url, path, sha256=server.sha256, **QUICK)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(server: FileServer, path: Path, code: int) -> None:
    server.answers = [code]
    assert str(code) in refusal(server, path).cause
    assert len(server.asked) == 1
    assert left_beside(path) == set()


def test_a_failing_server_is_given_three_tries(server: FileServer, path: Path) -> None:
    server.answers = [500] * 4
    assert "500 (Internal Server Error), 3 times in all" in refusal(server, path).cause
    assert len(server.asked) == 3


def test_nobody_there(tmp_path: Path, path: Path) -> None:
    with serve(FileServer(b"")) as server:
        pass
    error = refusal(server, path)
    assert "refused), 3 times in all" in error.cause
    assert ".part" not in error.remedy


def test_a_silent_server(server: FileServer, path: Path) -> None:
    server.silent = 0.5
    assert "the server fell silent, 1 times" in refusal(server, path, timeout=0.1, pauses=()).cause
    download(server.url, path, **QUICK)
    assert path.read_bytes() == CONTENT


PAGE = b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PAGE, "text/html; charset=utf-8"),
        (PAGE, "application/octet-stream"),
        (b"\n  <HTML><body>Log in</body></HTML>", "application/octet-stream"),
        (b'{"error": "not found"}', "application/json"),
    ],
)
def test_a_page_in_its_place(server: FileServer, path: Path, content: bytes, kind: str) -> None:
    server.content, server.headers = content, {"Content-Type": kind}
    assert "a page" in refusal(server, path).cause
    assert left_beside(path) == set()
    assert len(server.asked) == 1


def test_a_page_does_not_replace_what_came_before(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT[:1000])
    server.content, server.ranges, server.headers = PAGE, False, {"Content-Type": "text/html"}
    refusal(server, path)
    assert part_of(path).read_bytes() == CONTENT[:1000]


def test_a_length_is_needed_where_there_is_no_checksum(server: FileServer, path: Path) -> None:
    server.length = False
    assert "does not say how long" in refusal(server, path).cause
    download(server.url, path, sha256=server.sha256, **QUICK)
    assert path.read_bytes() == CONTENT


def test_a_full_disk(server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    error = refusal(server, path)
    assert error.cause == "the disk is full"
    assert "free some space" in error.remedy


def test_too_little_space_is_seen_before_the_download(
    server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    server.content = bytes(3_000_000)
    assert "it takes 3 MB" in refusal(server, path).cause
    assert left_beside(path) == set()


def test_a_folder_that_cannot_be_made(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    error = refusal(server, tmp_path / "a file" / "file.pkl")
    assert "SISUG_CACHE" in error.remedy
    assert server.asked == []


@pytest.mark.parametrize("url", ["http://example.org/file.pkl", "ftp://example.org/file.pkl", "file:///etc/passwd"])
def test_other_addresses_are_refused(path: Path, url: str) -> None:
    with pytest.raises(CheckpointError, match="over https only"):
        download(url, path)
    assert not path.parent.exists()


@pytest.mark.parametrize("target", ["http://example.org/file.pkl", "ftp://example.org/file.pkl"])
def test_redirections_stay_on_https(server: FileServer, path: Path, target: str) -> None:
    server.redirect = target
    cause = refusal(server, path).cause
    assert "302" in cause
    assert target in cause or "ftp" in cause


def test_redirections_are_followed_and_keep_the_range(server: FileServer, path: Path) -> None:
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT[:1000])
    with serve(FileServer(b"", redirect=server.url)) as first:
        download(first.url, path, **QUICK)
    assert path.read_bytes() == CONTENT
    assert server.asked[0]["range"] == "bytes=1000-"
    assert server.asked[0]["user-agent"].startswith("sisug/")


def test_two_at_once_fetch_it_once(server: FileServer, path: Path) -> None:
    server.pace = 0.01
    threads = [threading.Thread(target=download, args=(server.url, path), kwargs=QUICK) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_one_line_where_there_is_no_terminal(
    server: FileServer, path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sisug")
    download(server.url, path, **QUICK)
    assert [record.message for record in caplog.records if record.name.startswith("sisug")] == [
        f"downloading file.pkl from {server.url} to {path.parent}"
    ]
    assert capfd.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_progress_bar_on_a_terminal(server: FileServer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    download(server.url, path, **QUICK)
    assert "file.pkl" in terminal.getvalue()
    assert "300.0/300.0 kB" in terminal.getvalue()
