"""The demo in a real browser, as a stranger meets it: draw, see the image change, undo, bad files, two visitors."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
PATIENCE = 120_000
"""Milliseconds; two cores may be shared with much else."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The demo as `sisug demo` starts it."""
    command = [sys.executable, "-m", "sisug", "demo", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as server:
        assert server.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
        try:
            assert found is not None
            yield found[0]
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (on Debian: apt install chromium)")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[[], Any]]:
    """Open the page as a new visitor; no page may report an error."""
    contexts, errors = [], []

    def opened() -> Any:
        context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        until(page, "Number(document.body.dataset.images || 0) > 0")
        settle(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors


def until(page: Any, condition: str) -> None:
    """Wait for a condition on the page, asked from outside: its security policy lets nothing be evaluated inside."""
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"not within {PATIENCE / 1000:.0f} s: {condition}"
        page.wait_for_timeout(20)


def settle(page: Any) -> str:
    """Wait until the image has followed; returns it."""
    until(page, "!busy && done === wanted")
    return str(page.locator("#picture").get_attribute("src"))


@contextmanager
def brush_down(page: Any, start: tuple[float, float], end: tuple[float, float]) -> Iterator[None]:
    box = page.locator("#canvas").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=12)
    yield
    page.mouse.up()


def draw(page: Any, start: tuple[float, float], end: tuple[float, float]) -> str:
    with brush_down(page, start, end):
        pass
    return settle(page)


def choose(page: Any, name: str) -> None:
    page.locator("#palette button", has_text=re.compile(f"^{name}")).click()


def bad(page: Any) -> str:
    page.wait_for_selector("#say .bad")
    return str(page.locator("#say").inner_text())


def test_the_image_follows_while_the_brush_is_down_and_undo_brings_it_back(visit: Callable[[], Any]) -> None:
    page = visit()
    first = settle(page)
    choose(page, "hair")
    with brush_down(page, (0.25, 0.35), (0.3, 0.8)):
        until(page, f"document.getElementById('picture').src !== {json.dumps(first)}")
    drawn = settle(page)
    assert drawn != first
    page.locator("#undo").click()
    assert settle(page) == first
    page.keyboard.press("Control+y")
    assert settle(page) == drawn


def test_bucket_and_eraser_change_the_drawing(visit: Callable[[], Any]) -> None:
    page = visit()
    first = settle(page)
    page.locator("[data-tool=bucket]").click()
    choose(page, "hair")
    filled = draw(page, (0.5, 0.95), (0.5, 0.95))  # clothes
    assert filled != first
    page.locator("[data-tool=eraser]").click()
    assert draw(page, (0.3, 0.95), (0.7, 0.9)) != filled


@pytest.mark.parametrize("kind", ["seg", "scribble", "sketch", "edges", "exemplar"])
def test_each_kind_opens_with_something_to_see(visit: Callable[[], Any], kind: str) -> None:
    page = visit()
    page.locator(f"[data-kind={kind}]").click()
    until(page, f"state.kind === '{kind}' && !document.querySelector('#say .busy')")
    first = settle(page)
    if kind == "exemplar":
        page.locator("#like-sample").click()
        until(page, f"document.getElementById('picture').src !== {json.dumps(first)}")
    else:
        assert draw(page, (0.2, 0.2), (0.8, 0.75)) != first
    assert not page.locator("#say .bad").count()


def test_bad_files_get_a_sentence_beside_the_canvas_and_change_nothing(
    visit: Callable[[], Any], tmp_path: Path
) -> None:
    page = visit()
    before = settle(page)
    files = {
        "notes.txt": b"hello",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "huge.png": bytes(13 * 2**20),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        for start in ("#start-drawing", "#start-photo"):
            with page.expect_file_chooser() as chooser:
                page.locator(start).click()
            chooser.value.set_files(tmp_path / name)
            assert bad(page).startswith("Your picture")
            page.evaluate("say('')")
    assert settle(page) == before


def test_a_mask_of_the_examples_is_read(visit: Callable[[], Any], repository: Path) -> None:
    page = visit()
    before = settle(page)
    with page.expect_file_chooser() as chooser:
        page.locator("#start-drawing").click()
    chooser.value.set_files(repository / "examples" / "masks" / "avatar-4.png")
    until(page, f"document.getElementById('picture').src !== {json.dumps(before)}")
    assert not page.locator("#say .bad").count()


def test_two_visitors_do_not_mix(visit: Callable[[], Any]) -> None:
    one, other = visit(), visit()
    same = settle(one)
    assert settle(other) == same
    choose(one, "hair")
    choose(other, "clothes")
    with brush_down(one, (0.2, 0.2), (0.8, 0.3)), brush_down(other, (0.2, 0.6), (0.8, 0.7)):
        pass
    drawn = settle(one), settle(other)
    assert len({same, *drawn}) == 3
    other.locator("#undo").click()
    assert settle(other) == same
    assert settle(one) == drawn[0]


def test_styles_are_locked_shuffled_and_chosen(visit: Callable[[], Any]) -> None:
    page = visit()
    tiles = page.locator(".tile > button:first-child")
    names = tiles.all_inner_texts()
    page.locator(".tile .lock").nth(4).click()
    page.locator("#shuffle").click()
    settle(page)
    after = tiles.all_inner_texts()
    assert after[4] == names[4]
    assert sum(a != b for a, b in zip(names, after, strict=True)) == 7
    shuffled = settle(page)
    page.locator("#seed").fill("123")
    page.locator("#seed").press("Enter")
    assert settle(page) != shuffled
    assert "seed 123" in tiles.all_inner_texts()


def test_open_draw_change_style_download(visit: Callable[[], Any], tmp_path: Path) -> None:
    page = visit()  # one: hair is chosen already
    draw(page, (0.25, 0.35), (0.3, 0.8))  # two
    page.locator(".tile > button:first-child").nth(5).click()  # three
    shown = settle(page)
    with page.expect_download() as download:  # four
        page.locator("[data-download=all]").click()
    download.value.save_as(tmp_path / "sisug.zip")
    with zipfile.ZipFile(tmp_path / "sisug.zip") as archive:
        archive.extractall(tmp_path)
    image = (tmp_path / "drawing-seed5.png").read_bytes()
    assert image == base64.b64decode(shown.split(",")[1])
    # The command in the record gives the same bytes, in a process of its own.
    words = shlex.split(json.loads((tmp_path / "generate.json").read_text())["command"])
    command = [sys.executable, "-m", *words]
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    assert (tmp_path / "again" / "drawing-seed5.png").read_bytes() == image
