"""The demo's web side: limits, other pages kept out, errors as sentences, visitors apart; and its command."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sisug.synthesis.demo.server import application, without_paths
from sisug.synthesis.demo.studio import Studio
from sisug.synthesis.demo.uploads import MOST_BYTES

testclient = pytest.importorskip("starlette.testclient", reason="the extra `demo` is not installed")

SEG = {"model": "tiny", "kind": "seg", "style": "3"}
EMPTY = bytes(65536)


@pytest.fixture
def client(studio: Studio) -> Iterator[testclient.TestClient]:
    with testclient.TestClient(application(studio), base_url="http://127.0.0.1:7860") as made:
        yield made


def photo(seed: int) -> bytes:
    written = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(written, format="PNG")
    return written.getvalue()


@pytest.mark.parametrize(("path", "kind"), [("/", "html"), ("/page.js", "javascript"), ("/page.css", "css")])
def test_the_page_runs_nothing_but_its_own_files(client: testclient.TestClient, path: str, kind: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert kind in answer.headers["content-type"]
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "http://" not in answer.text.replace("http://www.w3.org", "")
    assert "https://" not in answer.text


def test_every_element_that_the_code_names_is_on_the_page(client: testclient.TestClient) -> None:
    import re

    page, code = client.get("/").text, client.get("/page.js").text
    named = set(re.findall(r'\$\("([\w-]+)"\)', code))
    assert named <= set(re.findall(r'id="([\w-]+)"', page))


def test_a_drawing_gives_an_image(client: testclient.TestClient) -> None:
    answer = client.post("/image", params=SEG, content=EMPTY)
    assert answer.status_code == 200
    assert answer.json()["image"].startswith("data:image/png;base64,")


@pytest.mark.parametrize("what", ["drawing", "photo", "picture"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", bytes(MOST_BYTES + 1)]
)
def test_bad_uploads_get_a_sentence(client: testclient.TestClient, what: str, content: bytes) -> None:
    answer = client.post(f"/{what}", params=SEG, content=content)
    assert answer.status_code == 400
    told = answer.json()["error"]
    assert set(told) == {"state", "cause", "remedy"}
    assert told["state"].startswith("your picture")


def test_an_upload_without_a_length_is_cut_off(client: testclient.TestClient) -> None:
    parts = (bytes(2**20) for _ in range(200))
    answer = client.post("/photo", params=SEG, content=parts)
    assert answer.status_code == 400
    assert answer.json()["error"]["state"] == "your picture is too large"


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "../../etc"},
        {"kind": "/etc/passwd"},
        {"style": "../../etc/passwd"},
        {"style": "-1"},
        {"style": "99999999999"},
        {"truncation": "nan"},
        {"truncation": "7"},
        {"mix": "x"},
        {"like": "%00"},
    ],
)
def test_no_request_reaches_beyond_what_is_offered(client: testclient.TestClient, changed: dict[str, str]) -> None:
    answer = client.post("/image", params=SEG | changed, content=EMPTY)
    assert answer.status_code == 400
    assert answer.json()["error"]["remedy"]


@pytest.mark.parametrize("path", ["/page/page.js", "/..%2f..%2fetc/passwd", "/studio.py", "/page.html"])
def test_no_other_file_is_served(client: testclient.TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_other_pages_cannot_ask_in_a_visitors_name(client: testclient.TestClient) -> None:
    assert client.get("/about", headers={"host": "evil.example"}).status_code == 403
    for origin, status in (("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:7860", 200)):
        assert client.post("/image", params=SEG, content=EMPTY, headers={"origin": origin}).status_code == status


def test_visitors_at_once_get_each_their_own(client: testclient.TestClient) -> None:
    numbers = np.random.default_rng(0).integers(0, 3, (8, 8, 8), np.uint8)
    drawn = [np.kron(each, np.ones((32, 32), np.uint8)).tobytes() for each in numbers]

    def image(number: int) -> str:
        answer = client.post("/image", params=SEG | {"style": str(number)}, content=drawn[number])
        return str(answer.json()["image"])

    alone = [image(number) for number in range(8)]
    assert len(set(alone)) == 8
    with ThreadPoolExecutor(8) as visitors:
        together = list(visitors.map(image, [number % 8 for number in range(40)]))
    assert together == [alone[number % 8] for number in range(40)]


def test_a_picture_is_shown_to_nobody_else(client: testclient.TestClient) -> None:
    names = [client.post("/picture", params=SEG, content=photo(seed)).json()["name"] for seed in range(2)]
    images = {client.post("/image", params=SEG | {"style": name}, content=EMPTY).json()["image"] for name in names}
    assert len(images) == 2
    guessed = names[0][:-1] + ("A" if names[0][-1] != "A" else "B")
    assert client.post("/image", params=SEG | {"style": guessed}, content=EMPTY).status_code == 400


def test_a_model_that_cannot_be_loaded_is_told_without_its_path(tmp_path: Path) -> None:
    from sisug.synthesis.demo.models import Models, Reader

    damaged = tmp_path / "secret-folder" / "mine.safetensors"
    damaged.parent.mkdir()
    damaged.write_bytes(b"nothing")
    broken = Studio(Models([Reader("tiny", "seg", str(damaged), damaged.name)], "cpu"))
    with testclient.TestClient(application(broken), base_url="http://localhost") as client:
        answer = client.post("/describe", params=SEG)
    assert answer.status_code == 400
    assert "secret" not in answer.text
    assert answer.json()["error"]["state"] == "this model cannot be loaded"


def test_paths_in_sentences_become_names() -> None:
    assert without_paths("file '/home/me/x/mask.png' and C:\\Users\\me\\a.png") == "file 'mask.png' and a.png"
    assert without_paths("at least 1/2 of it, GIF/PNG") == "at least 1/2 of it, GIF/PNG"


def test_a_missing_extra_is_named(
    sisug: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else find(name, *rest)
    )
    assert sisug("demo") == 2
    assert "sisug[demo]" in capsys.readouterr().err


def test_a_port_in_use_is_told(sisug: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert sisug("demo", "--port", taken.getsockname()[1]) == 2
    assert "choose another --port" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [("--port", 70000), ("--host", "no such host!"), ("--mapper", "[missing.safetensors]", "--port", 0)]
)
def test_mistakes_on_the_command_line_are_told(
    sisug: Callable[..., int], capsys: pytest.CaptureFixture[str], options: tuple[object, ...]
) -> None:
    assert sisug("demo", *options) == 2
    assert "Remedy:" in capsys.readouterr().err
