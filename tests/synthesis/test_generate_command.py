"""`sisug generate`: what it writes, that it repeats, and what it says about everything that it cannot use."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mapper.mappers import THREE
from PIL import Image
from synthesis.drawings import draw, mask, pixels

from sisug import cli
from sisug.errors import ConfigError
from sisug.generators import Generator
from sisug.generators.native import write_native
from sisug.synthesis.options import parse_seeds

Command = Callable[..., int]


@pytest.fixture
def generate(sisug: Command, mapper_file: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `sisug generate --mapper FILE ... --out out`, in an empty folder; later options win."""
    monkeypatch.setitem(cli.TOOLS, "generate", ("sisug.synthesis.commands:generate", "images of drawings"))

    def run(*arguments: object) -> int:
        return sisug("generate", "--mapper", mapper_file, "--out", "out", *arguments)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def message(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for part in ("error: ", "Cause: ", "Remedy: "):
        assert part in error, error
    return error


def test_one_drawing(generate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "face.png", mask())
    assert generate("--input", "face.png", "--seeds", "0-2,7") == 0
    files = contents(tmp_path / "out")
    images = {f"face-seed{seed}.png" for seed in (0, 1, 2, 7)}
    assert files.keys() == images | {"sheet.png", "generate.json"}
    assert len({files[name] for name in images}) == 4
    assert "out: 4 PNG" in capsys.readouterr().out
    record = json.loads(files["generate.json"])
    assert set(record["files"]) == images | {"sheet.png"}
    assert record["failed"] == []


def test_a_folder(generate: Command, tmp_path: Path) -> None:
    for number, name in enumerate(("b.png", "a.png", "a.bmp", ".hidden.png", "below/c.png")):
        draw(tmp_path / "in" / name, mask(number))
    (tmp_path / "in" / "palette.gpl").write_text("no picture")
    assert generate("--input", "in", "--seeds", "3") == 0
    record = json.loads((tmp_path / "out" / "generate.json").read_text())
    assert record["files"] == ["a-bmp-seed3.png", "a-png-seed3.png", "b-seed3.png", "sheet.png"]
    assert [each["file"] for each in record["inputs"]] == ["in/a.bmp", "in/a.png", "in/b.png"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*record["files"], "generate.json"}


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_command_writes_what_the_library_gives(
    generate: Command, mapper_file: Path, tmp_path: Path, batch_size: int
) -> None:
    from sisug.synthesis import Synthesizer

    paths = [draw(tmp_path / "in" / f"{n}.png", mask(n)) for n in range(3)]
    assert generate("--input", "in", "--seeds", "0-3", "--truncation", "0.5", "--batch_size", batch_size) == 0
    synthesizer = Synthesizer.load(mapper_file, device="cpu")
    result = synthesizer.generate(paths, synthesizer.styles(range(4), truncation=0.5))
    result.save(tmp_path / "library")
    result.save_grid(tmp_path / "library" / "sheet.png")
    names = [*result.file_names(), "sheet.png"]
    for name in names:
        difference = pixels(tmp_path / "out" / name).astype(int) - pixels(tmp_path / "library" / name)
        assert np.abs(difference).max() <= 1  # the last digits of a colour may fall on either side
    record = json.loads((tmp_path / "out" / "generate.json").read_text())
    assert {key: record[key] for key in result.record if key != "inputs"} == json.loads(
        json.dumps({key: value for key, value in result.record.items() if key != "inputs"})
    )


def test_the_same_command_gives_the_same_bytes(generate: Command, tmp_path: Path) -> None:
    draw(tmp_path / "face.png", mask())
    assert generate("--input", "face.png") == 0
    first = contents(tmp_path / "out")
    assert len(first) == 8 + 2
    torch.rand(3)
    assert generate("--input", "face.png") == 0
    assert contents(tmp_path / "out") == first


@pytest.mark.parametrize(
    "options",
    [
        ("--input", "face.png", "--seeds", "1,4", "--truncation", "0.6", "--style_mix", "9", "--batch_size", "3"),
        ("--input", "face.png", "--style_from", "5"),
        ("--exemplar", "3", "--seeds", "0-1"),
    ],
)
def test_the_record_makes_the_images_again(
    generate: Command, sisug: Command, tmp_path: Path, options: tuple[str, ...]
) -> None:
    draw(tmp_path / "face.png", mask())
    assert generate(*options) == 0
    record = json.loads((tmp_path / "out" / "generate.json").read_text())
    first = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    program, *arguments = shlex.split(record["command"])
    assert program == "sisug"
    assert sisug(*arguments) == 0
    assert contents(tmp_path / "out") == first


def test_looks_from_a_seed_and_from_a_picture(
    generate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sisug.synthesis.inversion.CANDIDATES", 16)
    monkeypatch.setattr("sisug.synthesis.inversion.STEPS", 3)
    draw(tmp_path / "face.png", mask())
    draw(tmp_path / "photo.png", mask(5))
    assert generate("--input", "face.png", "--style_from", "photo.png") == 0
    assert (tmp_path / "out" / "face-photo.png").exists()
    assert generate("--exemplar", "photo.png", "--seeds", "2", "--out", "other") == 0
    record = json.loads((tmp_path / "other" / "generate.json").read_text())
    assert record["files"] == ["like-photo-seed2.png", "sheet.png"]
    assert record["inputs"][0]["exemplar"]["file"] == "photo.png"


def test_an_exemplar_needs_no_mapper(sisug: Command, generate: Command, rearranger_file: Path, tmp_path: Path) -> None:
    assert sisug("generate", "--rearranger", rearranger_file, "--exemplar", "5", "--out", "out") == 0
    record = json.loads((tmp_path / "out" / "generate.json").read_text())
    assert record["rearranger"]["file"] == str(rearranger_file)
    assert "mapper" not in record


# --- the folder for the results ------------------------------------------------------------------------------------


def test_another_commands_images_are_kept(
    generate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "face.png", mask())
    assert generate("--input", "face.png", "--seeds", "0-1") == 0
    before = contents(tmp_path / "out")
    assert generate("--input", "face.png", "--seeds", "1-2") == 2
    assert "holds images of another command" in message(capsys)
    assert contents(tmp_path / "out") == before
    assert generate("--input", "face.png", "--seeds", "1-2", "--overwrite", "true") == 0
    after = contents(tmp_path / "out")
    assert after.keys() == {"face-seed1.png", "face-seed2.png", "sheet.png", "generate.json"}
    # A drawing that is changed is tried again by the same command.
    draw(tmp_path / "face.png", mask(3))
    assert generate("--input", "face.png", "--seeds", "1-2") == 0
    assert contents(tmp_path / "out")["face-seed1.png"] != after["face-seed1.png"]


def test_foreign_files_are_kept(generate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "face.png", mask())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "face-seed1.png").write_text("mine")
    (tmp_path / "out" / "notes.txt").write_text("mine too")
    assert generate("--input", "face.png", "--seeds", "0-1") == 2
    assert "face-seed1.png" in message(capsys)
    assert contents(tmp_path / "out") == {"face-seed1.png": b"mine", "notes.txt": b"mine too"}


def test_a_record_removes_nothing_outside_its_folder(generate: Command, tmp_path: Path) -> None:
    draw(tmp_path / "face.png", mask())
    (tmp_path / "out").mkdir()
    evil = {"format": "sisug-generated-1", "files": ["../face.png", str(tmp_path / "face.png"), "..", 3], "command": ""}
    (tmp_path / "out" / "generate.json").write_text(json.dumps(evil))
    assert generate("--input", "face.png", "--seeds", "0", "--overwrite", "true") == 0
    assert (tmp_path / "face.png").exists()


@pytest.mark.parametrize("out", ["taken", "taken/below", "/proc/none/out"])
def test_folders_that_cannot_be_written(
    generate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_reached(*_: object) -> None:
        raise AssertionError("work began before the folder was checked")

    monkeypatch.setattr("sisug.synthesis.synthesizer.Synthesizer.load", not_reached)
    draw(tmp_path / "face.png", mask())
    (tmp_path / "taken").write_text("a file")
    assert generate("--input", "face.png", "--out", out) == 2
    assert out in message(capsys)


def test_the_drawings_folder_is_not_written_to(
    generate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "in" / "face.png", mask())
    assert generate("--input", "in", "--out", "in/../in") == 2
    assert "is the folder of the drawings" in message(capsys)


# --- bad drawings --------------------------------------------------------------------------------------------------


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def half_transparent() -> Image.Image:
    image = Image.fromarray(np.array(THREE.palette, np.uint8)[mask()]).convert("RGBA")
    image.putalpha(128)
    return image


def smooth(size: int = 64) -> Image.Image:
    return Image.fromarray(noise((8, 8, 3))).resize((size, size), Image.Resampling.BICUBIC)


def palette_picture() -> Image.Image:
    image = Image.fromarray(noise((16, 16)) % 40)
    image.putpalette([v for i in range(256) for v in (i, 255 - i, 7)])
    return image


BAD: dict[str, tuple[str, Callable[[], Any], tuple[str, ...]]] = {
    "wide": ("wide.png", lambda: Image.new("RGB", (20, 16), THREE.palette[0]), ("20x16 pixels", "square")),
    "unknown colours": (
        "odd.png", lambda: Image.new("RGB", (16, 16), (1, 2, 3)), ("256 pixels", "#010203", "#c80000 left"),
    ),
    "half transparent": ("soft.png", half_transparent, ("256 half-transparent", "opacity 128", "hard brush")),
    "16 bit": ("deep.png", lambda: Image.fromarray(noise((16, 16)).astype(np.uint16) * 257), ("16 bits", "8 bits")),
    "palette": ("palette.png", palette_picture, ("stored numbers", "classes (left, right, rest)")),
    "grey": ("grey.png", lambda: Image.fromarray(noise((16, 16))), ("grey values", "0 to 2 are classes")),
    "empty": ("empty.png", lambda: b"", ("is not a picture", "PNG")),
    "cut": ("cut.png", lambda: None, ("is damaged",)),
    "cmyk": ("print.jpg", lambda: smooth().convert("CMYK"), ("colour model CMYK", "RGB")),
    "photo": ("photo.jpg", smooth, ("colours that label set 'three' does not have", "photo", "hard brush")),
    "don't care": ("blank.png", lambda: Image.new("RGBA", (16, 16)), ("no labelled pixel",)),
    "animated": ("moving.gif", lambda: "frames", ("2 frames",)),
    "text": ("text.png", lambda: b"not a picture at all", ("is not a picture",)),
}  # fmt: skip


def bad_file(folder: Path, kind: str) -> str:
    name, make, _ = BAD[kind]
    path, content = folder / name, make()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is None:
        draw(path, mask(size=64))
        path.write_bytes(path.read_bytes()[:90])
    elif content == "frames":
        frames = [Image.new("RGB", (16, 16), colour) for colour in THREE.palette[:2]]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    else:
        content.save(path)
    return name


@pytest.mark.parametrize("kind", list(BAD))
def test_a_bad_drawing_is_a_message_and_leaves_nothing(
    generate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    name = bad_file(tmp_path, kind)
    assert generate("--input", name) == 2
    error = message(capsys)
    for part in (name, *BAD[kind][2]):
        assert part in error
    assert not (tmp_path / "out").exists()


def test_the_good_ones_are_finished(generate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    names = sorted(bad_file(tmp_path / "in", kind) for kind in BAD)
    draw(tmp_path / "in" / "a.png", mask())
    draw(tmp_path / "in" / "z.png", mask(1))
    assert generate("--input", "in", "--seeds", "0-1") == 2
    error = message(capsys)
    assert f"{len(BAD)} of {len(BAD) + 2} drawings gave no images" in error
    for kind in BAD:
        for part in (BAD[kind][0], *BAD[kind][2]):
            assert part in error
    files = contents(tmp_path / "out")
    assert files.keys() == {
        "a-seed0.png", "a-seed1.png", "z-seed0.png", "z-seed1.png", "sheet.png", "generate.json",
    }  # fmt: skip
    record = json.loads(files["generate.json"])
    assert [Path(each["file"]).name for each in record["failed"]] == names
    assert all(each["state"] and each["cause"] and each["remedy"] for each in record["failed"])
    # The images are those that the good ones give alone.
    for name in names:
        (tmp_path / "in" / name).unlink()
    assert generate("--input", "in", "--seeds", "0-1", "--out", "alone") == 0
    alone = contents(tmp_path / "alone")
    assert {name: files[name] for name in alone if name != "generate.json"} == {
        name: content for name, content in alone.items() if name != "generate.json"
    }


def test_only_bad_ones(generate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for kind in ("empty", "cmyk"):
        bad_file(tmp_path / "in", kind)
    assert generate("--input", "in") == 2
    assert "none of the 2 pictures" in message(capsys)
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_no_half_written_file(
    generate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "face.png", mask())
    save, saved = Image.Image.save, []

    def save_two(image: Image.Image, file: Any, **options: Any) -> None:
        if len(saved) == 2:
            file.write(b"half a picture")
            raise OSError(28, "No space left on device")
        saved.append(True)
        save(image, file, **options)

    monkeypatch.setattr(Image.Image, "save", save_two)
    assert generate("--input", "face.png") == 74
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["face-seed0.png", "face-seed1.png"]


# --- bad options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--input", "none.png"), ("none.png does not exist",)),
        (("--input", "empty"), ("folder empty holds no images",)),
        (("--input", "nested"), ("nested holds no pictures", "below it")),
        (("--input", "face.png", "--seeds", "7-0"), ("'7-0'", "ends before", "1,5,9-12")),
        (("--input", "face.png", "--seeds", "a"), ("'a' is neither",)),
        (("--input", "face.png", "--seeds", "1,,2"), ("'' is neither",)),
        (("--input", "face.png", "--seeds", "0-99999999999"), ("more than 10,000",)),
        (("--input", "face.png", "--seeds", "9" * 30), ("seeds lie from",)),
        (("--input", "face.png", "--truncation", "2"), ("truncation 2.0",)),
        (("--input", "face.png", "--batch_size", "0"), ("batch_size 0",)),
        (("--input", "face.png", "--device", "tpu9"), ("'tpu9'",)),
        (("--input", "face.png", "--style_from", "none.jpg"), ("neither a seed nor a picture",)),
        (("--input", "face.png", "--style_from", "3", "--seeds", "1"), ("both say the style",)),
        (("--input", "face.png", "--exemplar", "3"), ("both say the layout",)),
        ((), ("--input is missing",)),
        (("--input", "face.png", "--rearranger", "x.ckpt"), ("leave out --rearranger",)),
        (("--input", "face.png", "--mapper", "none.safetensors"), ("none.safetensors", "there is no file")),
        (("--input", "face.png", "--mapper", "none.ckpt"), ("none.ckpt", "there is no such file")),
        (("--input", "face.png", "--mapper", "other.ckpt"), ("checkpoint of another stage",)),
        (("--input", "face.png", "--generator", "other.safetensors"), ("other weights",)),
        (("--input", "face.png", "--generator", "none.safetensors"), ("'none.safetensors' was not found",)),
    ],
)
def test_options_that_cannot_be_used(
    generate: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:
    draw(tmp_path / "face.png", mask())
    draw(tmp_path / "nested" / "below" / "face.png", mask())
    (tmp_path / "empty").mkdir()
    torch.save({"state_dict": {}, "hyper_parameters": {}}, tmp_path / "other.ckpt")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        write_native(tmp_path / "other.safetensors", Generator(6, 7, {4: 8, 8: 8, 16: 6}, mapping_layers=2))
    assert generate(*options) == 2
    error = message(capsys)
    for part in parts:
        assert part in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--input", "face.png", "--out", "out"), "--mapper is missing"),
        (("--exemplar", "1", "--out", "out"), "--rearranger is missing"),
        (("--mapper", "m.ckpt", "--input", "face.png"), "--out is missing"),
    ],
)
def test_missing_options(
    sisug: Command, generate: Command, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], part: str
) -> None:
    assert sisug("generate", *options) == 2
    assert part in message(capsys)


def test_mistakes_that_need_no_weights_are_told_before_torch_is_imported(tmp_path: Path) -> None:
    draw(tmp_path / "face.png", mask())
    (tmp_path / "empty").mkdir()
    asked = ["--mapper", "avatars-seg", "--out", "out", "--input"]
    mistakes = [
        ["--input", "face.png", "--out", "out"],
        [*asked, "none.png"],
        [*asked, "empty"],
        [*asked, "face.png", "--seeds", "3-1"],
        [*asked, "face.png", "--truncation", "2"],
        [*asked, "face.png", "--batch_size", "0"],
        [*asked, "face.png", "--style_from", "none.jpg"],
        [*asked, "face.png", "--out", "face.png"],
    ]
    script = f"""
import sys
from sisug import cli
assert all(cli.main(["generate", *mistake]) == 2 for mistake in {mistakes!r})
assert not {{"torch", "lightning"}} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Remedy: ") == len(mistakes)


def test_inference_leaves_what_is_slow_to_import_alone() -> None:
    script = """
import sys, sisug.synthesis.synthesizer
assert not {"torchvision", "torch._dynamo", "lightning", "torchmetrics"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-7", list(range(8))),
        ("3", [3]),
        ("1,5,9-12", [1, 5, 9, 10, 11, 12]),
        (" 2 , 1 - 3 ", [2, 1, 3]),
        ("4-4", [4]),
    ],
)
def test_seeds_as_people_write_them(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "-1", "1-", "1.5", "0x3", "1 2", "٣", "0-10000", "0-9999,10000"])
def test_what_is_no_seed(text: str) -> None:
    with pytest.raises(ConfigError, match="write them like"):
        parse_seeds(text)
