"""Files of MobileStyleGAN: other and hostile graphs, damaged wheels and caches are refused in words, in no time."""

from __future__ import annotations

import json
import multiprocessing
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from generators.loading_process import LoadingProcess
from generators.openvino_files import (
    FOLDER,
    GraphWriter,
    mapping_graph,
    members,
    synthesis_graph,
    write_wheel,
)

import sisug.generators.preset as presets
from sisug.errors import CheckpointError, ConfigError, SisugError
from sisug.generators import load_discriminator, load_generator
from sisug.generators.inspection import inspect
from sisug.generators.mobilestylegan.conversion import converted, read_wheel
from sisug.generators.mobilestylegan.openvino_ir import GraphError, read_graph
from sisug.generators.mobilestylegan.published import synthesis_weights
from sisug.generators.preset import preset, preset_file

SECONDS = 1.0
MEMORY = 200 << 20
SYNTHESIS = f"{FOLDER}/SynthesisNetwork"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "generators"


# --- hostile files ---------------------------------------------------------------------------------------------------


def replaced(pattern: str, by: str, count: int = 1) -> dict[str, bytes]:
    """The small networks' files, with something else in the XML of the synthesis network."""
    contents = members()
    text, found = re.subn(pattern, by, contents[f"{SYNTHESIS}.xml"].decode(), count=count)
    assert found, pattern
    return contents | {f"{SYNTHESIS}.xml": text.encode()}


def with_xml(markup: bytes) -> dict[str, bytes]:
    return members() | {f"{SYNTHESIS}.xml": markup}


def laughs() -> bytes:
    entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    return f'<!DOCTYPE net [<!ENTITY a0 "ha">{entities}]><net version="10"><layers>&a11;</layers></net>'.encode()


def hostile(canary: Path) -> dict[str, dict[str, bytes]]:
    """Files of wheels that would take memory or time, or read other files."""
    external = f'<!DOCTYPE net [<!ENTITY x SYSTEM "file://{canary}">]><net version="10">&x;</net>'
    parameter = f'<!DOCTYPE net [<!ENTITY % x SYSTEM "file://{canary}"> %x;]><net version="10"/>'
    many = b'<layer id="%d" type="Const"/>'
    return {
        "entities of entities": with_xml(laughs()),
        "one huge entity": with_xml(
            f'<!DOCTYPE net [<!ENTITY a "{"x" * 100_000}">]><net>{"&a;" * 10_000}</net>'.encode()
        ),
        "external entity": with_xml(external.encode()),
        "external parameter entity": with_xml(parameter.encode()),
        "document type alone": with_xml(b'<!DOCTYPE net SYSTEM "http://127.0.0.1:9/x"><net version="10"/>'),
        "elements in elements": with_xml(b"<net version='10'>" + b"<a>" * 1_000_000),
        "elements without end": with_xml(b"<net version='10'><layers>" + b"<a/>" * 1_000_000),
        "layers without end": with_xml(
            b"<net version='10'><layers>" + b"".join(many % i for i in range(120_000)) + b"</layers></net>"
        ),
        "huge attribute": with_xml(b"<net version='10' x='" + b"x" * (3 << 20) + b"'/>"),
        "huge text": with_xml(b"<net version='10'>" + b"x" * (3 << 20) + b"</net>"),
        "huge file": with_xml(b"<net version='10'>" + b" " * (40 << 20) + b"</net>"),
        "huge shape": replaced(r'shape="16, 16, 3, 3"', 'shape="9999999999, 9999999999, 3, 3"'),
        "huge shape and size": replaced(
            r'size="9216" shape="16, 16, 3, 3"', 'size="144000000000" shape="1000000000, 4, 3, 3"'
        ),
        "many dimensions": replaced(r'shape="16, 16, 3, 3"', f'shape="{"1," * 5000}16"'),
        "endless number": replaced(r'shape="16, 16, 3, 3"', f'shape="{"9" * 500_000}"'),
        "negative offset": replaced(r'offset="\d+" size="9216"', 'offset="-4" size="9216"'),
        "offset outside": replaced(r'offset="\d+" size="9216"', 'offset="999999999" size="9216"'),
        "offset just outside": replaced(r'offset="\d+" size="9216"', 'offset="999999" size="9216"'),
        "no offset": replaced(r'offset="\d+" size="9216"', 'size="9216"'),
        "offset that is no number": replaced(r'offset="\d+" size="9216"', 'offset="1e3" size="9216"'),
        "unknown type": replaced(r'element_type="f32" (offset="\d+" size="9216")', r'element_type="object" \1'),
        "whole numbers as weights": replaced(
            r'element_type="f32" (offset="\d+" size="9216")', r'element_type="i32" \1'
        ),
        "not UTF-8": with_xml(b'<?xml version="1.0" encoding="utf-8"?><net version="10">\xff\xfe</net>'),
        "unknown encoding": with_xml(b'<?xml version="1.0" encoding="x-evil"?><net version="10"/>'),
        "empty XML": with_xml(b""),
        "cut XML": with_xml(members()[f"{SYNTHESIS}.xml"][:-3000]),
        "cut numbers": members() | {f"{SYNTHESIS}.bin": members()[f"{SYNTHESIS}.bin"][:-100]},
        "no numbers": members() | {f"{SYNTHESIS}.bin": b""},
        "numbers that are none": members() | {f"{SYNTHESIS}.bin": b"\xff" * len(members()[f"{SYNTHESIS}.bin"])},
        "a web page": with_xml(b"<html><body>Sign in</body></html>"),
        "another document": with_xml(b"<svg><layers/></svg>"),
        "text": with_xml(b"no XML at all"),
        "member missing": {name: value for name, value in members().items() if not name.endswith("work.bin")},
        "numbers of 100 MB": members() | {f"{SYNTHESIS}.bin": bytes(100 << 20)},
    }


@pytest.fixture(scope="module")
def process() -> Iterator[LoadingProcess]:
    running = LoadingProcess()
    yield running
    running.end()


def test_hostile_files_are_refused_at_once(tmp_path: Path, process: LoadingProcess) -> None:
    canary = tmp_path / "canary"
    canary.write_text("<layers/>")
    for name, contents in hostile(canary).items():
        path = write_wheel(tmp_path / "hostile.whl", contents)
        verdict = process.load(path)
        assert verdict.error == "CheckpointError", (name, verdict)
        assert "holds no MobileStyleGAN" in verdict.message, (name, verdict)
        assert verdict.seconds < SECONDS, (name, verdict)
        assert verdict.growth < MEMORY, (name, verdict)
    assert canary.read_text() == "<layers/>"


def damaged_wheels(whole: bytes) -> dict[str, bytes]:
    return {
        "cut": whole[: len(whole) // 2],
        "cut at the end": whole[:-10],
        "empty": b"",
        "a page": b"<html>",
        "damaged inside": whole[:200] + b"\x00" * 400 + whole[600:],
        "its lengths lie": whole.replace(len(members()[f"{SYNTHESIS}.bin"]).to_bytes(4, "little"), b"\xff\xff\xff\x7f"),
    }


def test_damaged_wheels_are_refused_and_leave_nothing(tmp_path: Path, process: LoadingProcess, cache: Path) -> None:
    whole = write_wheel(tmp_path / "whole.whl").read_bytes()
    path = tmp_path / "damaged.whl"
    for name, content in damaged_wheels(whole).items():
        path.write_bytes(content)
        verdict = process.load(path)
        assert verdict.error == "CheckpointError", (name, verdict)
        assert verdict.growth < MEMORY, (name, verdict)
        with pytest.raises(CheckpointError, match=r"random-face==2021\.7\.21\.1"):
            read_wheel(path)
        with pytest.raises(CheckpointError):
            load_generator(path)
        assert [each.name for each in cache.iterdir() if each.suffix != ".lock"] == [], name


def test_members_of_strange_compression_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="packed in a way"):
        read_wheel(write_wheel(tmp_path / "strange.whl", compression=zipfile.ZIP_LZMA))


# --- other graphs ----------------------------------------------------------------------------------------------------


def a_cycle() -> dict[str, bytes]:
    """The first layer of the smallest block takes what it gives."""
    contents = members()
    text = contents[f"{SYNTHESIS}.xml"].decode()
    (last,) = re.findall(r'id="(\d+)" name="block_8"', text)
    (tile,) = re.findall(r'id="(\d+)" name="[^"]*" type="Tile"', text)
    return contents | {f"{SYNTHESIS}.xml": text.replace(f'from-layer="{tile}"', f'from-layer="{last}"').encode()}


OTHERS: dict[str, Callable[[], dict[str, bytes]]] = {
    "another activation": lambda: replaced('type="PReLU"', 'type="Relu"'),
    "another version": lambda: replaced('version="10"', 'version="11"'),
    "two results": lambda: replaced('type="Tile"', 'type="Result"'),
    "no parameter": lambda: replaced('type="Parameter"', 'type="Const"'),
    "stride": lambda: replaced(r'strides="1, 1"', 'strides="2, 2"'),
    "dilation": lambda: replaced(r'dilations="1, 1"', 'dilations="2, 2"'),
    "padding": lambda: replaced(r'pads_begin="1, 1"', 'pads_begin="0, 0"'),
    "automatic padding": lambda: replaced('auto_pad="explicit"', 'auto_pad="same_upper"'),
    "transposed weight": lambda: replaced('transpose_b="true"', 'transpose_b="false"'),
    "stride of a wavelet": lambda: replaced('strides="2, 1"', 'strides="1, 1"'),
    "bands exchanged": lambda: exchanged("Squeeze", 0, 1),
    "wavelet's halves exchanged": lambda: exchanged("Squeeze", 0, 2),
    "edge to nowhere": lambda: replaced(r'to-layer="\d+"', 'to-layer="9999"'),
    "edge from nowhere": lambda: replaced(r'from-layer="\d+"', 'from-layer="x"'),
    "two edges to one port": lambda: replaced(r'(<edge [^>]*to-port="0" */>)', r"\1\1"),
    "two layers of one id": lambda: replaced(r'id="3"', 'id="2"'),
    "a cycle": a_cycle,
    "sum in place of a product": lambda: replaced('type="Multiply"', 'type="Add"', count=0),
    "other mapping network": lambda: members() | renamed("SynthesisNetwork", "MappingNetwork"),
    "other synthesis network": lambda: members() | renamed("MappingNetwork", "SynthesisNetwork"),
    "slope": lambda: with_number(0.2, 0.1),
    "filter of a wavelet": lambda: with_number(0.5**0.5, 0.6),
    "normalization": lambda: with_mapping_number(1e-8, 1e-3),
    "gain below zero": lambda: members(mapping_graph(gain=-1.0)),
    "channels that make no bands": lambda: members(synthesis=synthesis_graph(channels={4: 16, 8: 18, 16: 8})),
}


def exchanged(kind: str, one: int, other: int) -> dict[str, bytes]:
    """What two layers of a kind take, the other way round."""
    contents = members()
    text = contents[f"{SYNTHESIS}.xml"].decode()
    ids = [
        re.search(r'id="(\d+)"', tag)[1]  # type: ignore[index]
        for tag in re.findall(r"<layer [^>]*>", text)
        if f'type="{kind}"' in tag
    ]
    for a, b in ((ids[one], "x"), (ids[other], ids[one]), ("x", ids[other])):
        text = text.replace(f'to-layer="{a}" to-port="0"', f'to-layer="{b}" to-port="0"')
    return contents | {f"{SYNTHESIS}.xml": text.encode()}


def renamed(source: str, target: str) -> dict[str, bytes]:
    contents = members()
    return {f"{FOLDER}/{target}.{suffix}": contents[f"{FOLDER}/{source}.{suffix}"] for suffix in ("xml", "bin")}


def with_number(old: float, new: float) -> dict[str, bytes]:
    return _with_number("SynthesisNetwork", old, new)


def with_mapping_number(old: float, new: float) -> dict[str, bytes]:
    return _with_number("MappingNetwork", old, new)


def _with_number(name: str, old: float, new: float) -> dict[str, bytes]:
    contents = members()
    numbers = contents[f"{FOLDER}/{name}.bin"]
    before, after = (np.float32(value).tobytes() for value in (old, new))
    assert before in numbers
    return contents | {f"{FOLDER}/{name}.bin": numbers.replace(before, after)}


@pytest.mark.parametrize("name", OTHERS)
def test_other_graphs_are_refused_in_words(tmp_path: Path, name: str) -> None:
    path = write_wheel(tmp_path / "other.whl", OTHERS[name]())
    with pytest.raises(CheckpointError, match=r"holds no MobileStyleGAN.*Cause: .*Remedy: give the wheel random-face"):
        read_wheel(path)


def test_an_empty_graph_is_refused() -> None:
    markup, numbers = GraphWriter("SynthesisNetwork", 0).files()
    graph = read_graph(markup, numbers)
    with pytest.raises(GraphError, match="0 layers of type Parameter"):
        synthesis_weights(graph)


# --- conversion ------------------------------------------------------------------------------------------------------


def test_a_wheel_by_path_is_converted_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = write_wheel(tmp_path / "small.whl")
    first = load_generator(wheel)
    (file,) = cache.glob("*.safetensors")
    monkeypatch.setattr("sisug.generators.mobilestylegan.conversion.read_wheel", lambda wheel: pytest.fail("again"))
    assert load_generator(wheel).fingerprint == first.fingerprint == load_generator(file).fingerprint
    sidecar = json.loads(file.with_suffix(".json").read_text())
    assert sidecar["format"] == "sisug-mobilestylegan-1"
    assert sidecar["source"] == "small.whl"
    assert sidecar["fingerprint"] == first.fingerprint
    assert load_discriminator(file) is None
    with pytest.raises(SisugError):
        load_generator(file, label=1)


@pytest.mark.slow
def test_two_processes_may_convert_at_once(tmp_path: Path) -> None:
    wheel, target = write_wheel(tmp_path / "small.whl"), tmp_path / "new" / "small.safetensors"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=converted, args=(wheel, target)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert load_generator(target).resolution == 64


def test_a_cache_that_cannot_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="SISUG_CACHE"):
        load_generator(write_wheel(tmp_path / "small.whl"))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SisugError, match="disk is full"):
        load_generator(write_wheel(tmp_path / "small.whl"))
    assert [each.name for each in cache.iterdir() if each.suffix != ".lock"] == []


@pytest.mark.parametrize("cut", [0, 4, 100, 5000])
def test_a_cut_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = converted(write_wheel(tmp_path / "small.whl"), tmp_path / "small.safetensors")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"Cause.*Remedy"):
        load_generator(path)


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    path = converted(write_wheel(tmp_path / "small.whl"), tmp_path / "small.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_generator(path)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    path = converted(write_wheel(tmp_path / "small.whl"), tmp_path / "small.safetensors")
    path.write_bytes(path.read_bytes().replace(b"sisug-mobilestylegan-1", b"sisug-mobilestylegan-2"))
    with pytest.raises(CheckpointError, match="update sisug"):
        load_generator(path)


def test_inspect_says_what_it_is(tmp_path: Path) -> None:
    path = converted(write_wheel(tmp_path / "small.whl"), tmp_path / "small.safetensors", terms="for tests only")
    text = inspect(str(path), tmp_path / "grid.png")
    for part in ("MobileStyleGAN", "small.whl", "64 x 64 px", "11 styles", "8, 16 px", "for tests only"):
        assert part in text, part
    assert (tmp_path / "grid.png").is_file()
    with pytest.raises(ConfigError):
        inspect(str(path), tmp_path / "grid.jpg")


# --- the preset ------------------------------------------------------------------------------------------------------


def test_the_preset_comes_from_its_wheel_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    asked = []

    def fetched(package: str, version: str, sha256s: list[str], *, terms: str, size_mb: float) -> Path:
        asked.append((package, version, *sha256s, terms))
        return write_wheel(tmp_path / "random_face-2021.7.21.1-py3-none-any.whl")

    monkeypatch.setattr(presets, "wheel_file", fetched)
    generator = load_generator("faces")
    assert generator.source == "faces"
    assert preset_file(preset("faces")) == cache / preset("faces").file
    ((package, version, sha256, terms),) = asked
    assert (package, version) == ("random-face", "2021.7.21.1")
    assert sha256 == "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5"
    assert "research and evaluation" in terms
    assert (
        "research and evaluation"
        in json.loads((cache / preset("faces").file).with_suffix(".json").read_text())["terms"]
    )


def test_a_wrong_wheel_says_which_one_to_put_where(cache: Path) -> None:
    wheels = cache.parent / "wheels"
    wheels.mkdir(parents=True)
    write_wheel(wheels / "random_face-2021.7.21.1-py3-none-any.whl")
    with pytest.raises(CheckpointError, match=r"put the file random_face-2021.*e5d10e2be.*wheels"):
        load_generator("faces")
    assert not list(cache.parent.rglob("*.safetensors"))
