"""`sisug data check` and `sisug data convert`: reports, exit codes, clean trees, interruptions, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.masks.trees import FACE, celebamask, image, image_masks, mask, save
from filelock import FileLock
from PIL import Image

from sisug import cli
from sisug.data.images.datamodule import ImageFolderDataModule
from sisug.data.masks import CelebAMaskPairs, ImageMaskFolder, converting
from sisug.errors import DataError
from sisug.labels.label_files import read_label_set
from sisug.labels.label_sets import LabelSet, label_set
from sisug.labels.mask_files import read_mask

Command = Callable[..., int]

NAMES = ["a", "b/1", "b/2", "c"]


@pytest.fixture
def labels(tmp_path: Path) -> str:
    path = tmp_path / "face.json"
    path.write_text(json.dumps(FACE.to_dict()))
    return str(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return image_masks(tmp_path / "tree", NAMES)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


# --- check ---------------------------------------------------------------------------------------------------------


def test_check_counts_classes(sisug: Command, tree: Path, labels: str, capsys: pytest.CaptureFixture[str]) -> None:
    only_skin = np.zeros((16, 16), np.uint8)
    only_skin[:4] = 255
    save(tree / "masks/a.png", only_skin)
    assert sisug("data", "check", tree, "--labels", labels) == 0
    out = capsys.readouterr().out
    pixels = np.bincount(np.concatenate([only_skin.ravel(), *(mask(i).ravel() for i in (1, 2, 3))]), minlength=256)
    labelled = pixels[:3].sum()
    for number, (name, images) in enumerate(zip(FACE.classes, (4, 3, 3), strict=True)):
        line = next(line for line in out.splitlines() if f" {name} " in line)
        assert line.split() == [str(number), name, f"{pixels[number] / labelled:.2%}", str(images)]
    assert f"{pixels[255] / 1024:.2%}" in next(line for line in out.splitlines() if "without a label" in line)
    assert "tree: 4 images with masks, label set 'face'" in out
    assert "mask sizes: 16x16 (4)" in out
    assert "No problems" in out


def test_check_lists_all_problems_and_exits_with_1(
    sisug: Command, tree: Path, labels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tree / "images/alone.png", image(5))
    save(tree / "masks/extra.png", mask(5))
    save(tree / "masks/a.png", np.full((16, 16), 9, np.uint8))
    save(tree / "masks/b/1.png", mask(1)[:8])
    save(tree / "images/b/2.png", image(2)[:, :8])
    (tree / "images/c.png").write_bytes(b"")
    assert sisug("data", "check", tree, "--labels", labels) == 1
    out = capsys.readouterr().out
    for line in (
        "1 images without a mask: images/alone.png",
        "1 masks without an image: masks/extra.png",
        "256 pixels with grey values that are no class of label set 'face': 9 (256 px)",
        "masks/b/1.png has 16x8 pixels",
        "1 images not square: images/b/2.png (8x16)",
        "1 images unreadable: images/c.png (empty file)",
        "6 problems",
    ):
        assert line in out
    assert str(tree) not in out


def test_check_of_published_faces(sisug: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    celebamask(tmp_path / "faces", [0, 1, 2])
    assert sisug("data", "check", tmp_path / "faces") == 0
    out = capsys.readouterr().out
    assert "3 images with masks, label set 'celebamask-hq'" in out
    assert "image sizes: 32x32 (3)" in out
    assert "mask sizes: 16x16 (3)" in out
    (tmp_path / "faces/CelebA-HQ-img/2.jpg").unlink()
    assert sisug("data", "check", tmp_path / "faces", "--labels", "celebamask-hq-bisenet") == 1
    assert "1 numbers with parts but without an image: 00002" in capsys.readouterr().out


def test_check_of_images_only(sisug: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "afhq/train/cat/1.png", image(0))
    save(tmp_path / "afhq/val/dog/2.png", image(1, 8))
    assert sisug("data", "check", tmp_path / "afhq") == 0
    assert "2 of 2 images usable" in capsys.readouterr().out
    assert sisug("data", "check", tmp_path / "afhq", "--resolution", 16) == 1
    assert "smaller than 16 px: val/dog/2.png (8x8)" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "convert"])
def test_databases_are_to_be_exported(
    sisug: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "church_lmdb").mkdir()
    (tmp_path / "church_lmdb/data.mdb").write_bytes(b"x")
    options = ("--to", tmp_path / "out") if command == "convert" else ()
    for explicit in ((), ("--format", "images")):
        assert sisug("data", command, tmp_path / "church_lmdb", *options, *explicit) == 2
        assert "data.py export" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none",), "none does not exist"),
        (("tree",), "without a label set"),
        (("tree", "--labels", "moon"), "no label set 'moon'"),
        (("tree", "--labels", "avatars", "--tolerance", "-1"), "tolerance -1"),
        (("tree", "--labels", "avatars", "--resolution", "1"), "resolution 1"),
        (("tree", "--format", "celebamask-hq"), "no folders CelebA-HQ-img"),
    ],
)
def test_check_of_what_cannot_be_checked(
    sisug: Command, tree: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert sisug("data", "check", *arguments) == 2
    assert message in capsys.readouterr().err


# --- convert -------------------------------------------------------------------------------------------------------


def test_clean_tree_holds_the_same(sisug: Command, tree: Path, labels: str, tmp_path: Path) -> None:
    colours = np.array(FACE.palette, np.uint8)[mask(3)]
    (tree / "masks/c.png").unlink()
    save(tree / "masks/c.bmp", colours)
    before = content(tree)
    assert sisug("data", "convert", tree, "--to", "out", "--labels", labels) == 0
    assert content(tree) == before
    out = tmp_path / "out"
    assert sorted(content(out)) == sorted(
        [*(f"{part}/{name}.png" for part in ("images", "masks") for name in NAMES), "labels.json", "conversion.json"]
    )
    dataset = ImageMaskFolder(out, 16)
    assert dataset.label_set == FACE
    for number, name in enumerate(NAMES):
        assert np.array_equal(np.asarray(Image.open(out / "images" / f"{name}.png")), image(number))
        assert np.array_equal(np.asarray(Image.open(out / "masks" / f"{name}.png")), mask(number))
    record = json.loads((out / "conversion.json").read_text())
    assert record["complete"] is True
    assert record["images"] == 4
    assert str(tmp_path) not in (out / "conversion.json").read_text()
    assert sisug("data", "check", out) == 0


def test_scenes_are_cropped_on_request(
    sisug: Command, tree: Path, labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide, wide_mask = np.tile(image(0), (1, 2, 1))[:, :27], np.tile(mask(0), 2)[:, :27]
    save(tree / "images/a.png", wide)
    save(tree / "masks/a.png", wide_mask)
    options = ("--labels", labels, "--crop", "centre")
    assert sisug("data", "check", tree, "--labels", labels) == 1
    assert "images/a.png (27x16)" in capsys.readouterr().out
    assert sisug("data", "check", tree, *options) == 0
    out = capsys.readouterr().out
    assert "1 are not square" in out
    counted = np.bincount(np.concatenate([wide_mask[:, 5:21].ravel(), *(mask(i).ravel() for i in (1, 2, 3))]))
    for number, name in enumerate(FACE.classes):
        assert f"{number}  {name:<15}  {counted[number] / counted.sum():>6.2%}" in out
    assert sisug("data", "convert", tree, "--to", "out", *options) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/images/a.png")), wide[:, 5:21])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/a.png")), wide_mask[:, 5:21])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/c.png")), mask(3))
    assert sisug("data", "convert", tree, "--to", "out", "--labels", labels) == 2
    assert "another conversion (other: crop)" in capsys.readouterr().err
    save(tree / "masks/a.png", np.tile(mask(0), (2, 1)))
    assert sisug("data", "check", tree, *options) == 1
    assert "images and masks of different shapes: a has an image of 27x16" in capsys.readouterr().out


def test_trees_of_the_time_before_crops_go_on(sisug: Command, tree: Path, labels: str, tmp_path: Path) -> None:
    convert = ("data", "convert", tree, "--to", "out", "--labels", labels)
    assert sisug(*convert) == 0
    record = json.loads((tmp_path / "out/conversion.json").read_text())
    assert record["settings"].pop("crop") == "none"
    (tmp_path / "out/conversion.json").write_text(json.dumps(record))
    assert sisug(*convert) == 0


def test_faces_are_merged_and_resized(sisug: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    celebamask(tmp_path / "faces", [0, 1, 1999, 2000])
    arguments = ("--to", "out", "--labels", "celebamask-hq-bisenet", "--format", "celebamask-hq")
    assert sisug("data", "convert", tmp_path / "faces", *arguments) == 0
    assert "splits: first-2000 3" in capsys.readouterr().out
    pairs = CelebAMaskPairs(tmp_path / "faces", label_set("celebamask-hq-bisenet"))
    dataset = ImageMaskFolder(tmp_path / "out", 16)
    assert dataset.names == pairs.names
    assert dataset.label_set == pairs.labels
    for number, name in enumerate(pairs.names):
        assert np.array_equal(dataset[number]["mask"], pairs.mask(name))
    assert (tmp_path / "out/splits/first-2000.txt").read_text() == "00000\n00001\n01999\n"
    assert sisug("data", "convert", tmp_path / "faces", "--to", "small", "--resolution", 8) == 0
    assert np.asarray(Image.open(tmp_path / "small/images/00000.png")).shape == (8, 8, 3)


def test_images_only_keep_their_folders(sisug: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "caches"))
    for number, name in enumerate(("train/cat/1.png", "train/cat/1.jpg", "train/wild/2.webp", "test/dog/3.png")):
        save(tmp_path / "afhq" / name, image(number))
    save(tmp_path / "afhq/train/cat/wide.png", image(7, 24)[:16])
    assert sisug("data", "convert", tmp_path / "afhq", "--to", "out", "--resolution", 16) == 0
    names = ["test/dog/3", "train/cat/1", "train/cat/1_png", "train/cat/wide", "train/wild/2"]
    assert sorted(content(tmp_path / "out")) == sorted(
        ["conversion.json", *(f"images/{name}.png" for name in names), "splits/test.txt", "splits/train.txt"]
    )
    wide = np.asarray(Image.open(tmp_path / "out/images/train/cat/wide.png"))
    assert np.array_equal(wide, image(7, 24)[:16, 4:20])
    assert ImageFolderDataModule(str(tmp_path / "out/images"), 16, batch_size=2).length == 5


def test_bad_files_leave_the_tree_unfinished_until_corrected(
    sisug: Command, tree: Path, labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tree / "masks/a.png", np.full((16, 16), 9, np.uint8))
    arguments = ("data", "convert", tree, "--to", "out", "--labels", labels)
    assert sisug(*arguments) == 2
    err = capsys.readouterr().err
    assert "masks/a.png" in err
    assert "other 3 images are written" in err
    with pytest.raises(DataError, match=r"not finished.*give the same"):
        ImageMaskFolder(tmp_path / "out", 16)
    save(tree / "masks/a.png", mask(0))
    assert sisug(*arguments) == 0
    assert "4 images (1 written now)" in capsys.readouterr().out
    assert len(ImageMaskFolder(tmp_path / "out", 16)) == 4


def test_bad_files_can_be_left_out(
    sisug: Command, tree: Path, labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tree / "masks/a.png", np.full((16, 16), 9, np.uint8))
    (tree / "masks/c.png").unlink()
    arguments = ("data", "convert", tree, "--to", "out", "--labels", labels)
    assert sisug(*arguments) == 2
    assert "images/c.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # pairing is known before anything is written
    assert sisug(*arguments, "--skip-bad", "true") == 0
    out = capsys.readouterr().out
    assert "left out: 1 images without a mask: images/c.png" in out
    assert "left out: 1 images that cannot be used: a (" in out
    assert ImageMaskFolder(tmp_path / "out", 16).names == ("b/1", "b/2")


def test_changed_sources_are_written_again(
    sisug: Command, tree: Path, labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("data", "convert", tree, "--to", "out", "--labels", labels)
    assert sisug(*arguments) == 0
    assert sisug(*arguments) == 0
    assert "4 images (0 written now)" in capsys.readouterr().out
    save(tree / "masks/a.png", mask(77))
    os.utime(tree / "masks/a.png", (time.time() + 5, time.time() + 5))
    for part in ("images", "masks"):
        (tree / part / "c.png").unlink()
    assert sisug(*arguments) == 0
    out = capsys.readouterr().out
    assert "3 images (1 written now)" in out
    assert "1 images there are not (or no longer) in" in out
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/a.png")), mask(77))


def test_a_changed_source_with_an_older_date_is_written_again(
    sisug: Command, tree: Path, labels: str, tmp_path: Path
) -> None:
    arguments = ("data", "convert", tree, "--to", "out", "--labels", labels)
    assert sisug(*arguments) == 0
    before = (tree / "masks/a.png").stat()
    save(tree / "masks/a.png", mask(77))
    os.utime(tree / "masks/a.png", (before.st_atime, before.st_mtime - 1000))
    assert sisug(*arguments) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/a.png")), mask(77))
    save(tree / "masks/a.png", mask(78))
    os.utime(tree / "masks/a.png", (before.st_atime, before.st_mtime - 1000))  # a date that says nothing
    assert sisug(*arguments) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/a.png")), mask(78))


def test_a_name_that_passes_to_another_image(sisug: Command, tmp_path: Path) -> None:
    save(tmp_path / "t/7.jpg", np.zeros((40, 40, 3), np.uint8))
    save(tmp_path / "t/7.png", np.full((40, 40, 3), 255, np.uint8))
    assert sisug("data", "convert", "t", "--to", "out") == 0
    (tmp_path / "t/7.jpg").unlink()
    assert sisug("data", "convert", "t", "--to", "out") == 0
    assert np.unique(np.asarray(Image.open(tmp_path / "out/images/7.png"))).tolist() == [255]


def test_converted_masks_say_the_same_by_number_and_by_colour(
    sisug: Command, tree: Path, labels: str, tmp_path: Path
) -> None:
    assert sisug("data", "convert", tree, "--to", "out", "--labels", labels) == 0
    picture = Image.open(tmp_path / "out/masks/a.png")
    assert np.array_equal(np.asarray(picture), mask(0))
    in_colour = tmp_path / "colour.png"
    picture.convert("RGB").save(in_colour)
    assert np.array_equal(read_mask(in_colour, read_label_set(str(tmp_path / "out/labels.json"))), mask(0))


@pytest.mark.parametrize("listed", ["a.png\nc\n", "a\nnowhere\n", "a\na\n"])
def test_lists_that_name_what_is_not_there_are_refused(
    sisug: Command, tree: Path, labels: str, capsys: pytest.CaptureFixture[str], listed: str
) -> None:
    (tree / "splits").mkdir()
    (tree / "splits/test.txt").write_text(listed)
    assert sisug("data", "convert", tree, "--to", "out", "--labels", labels) == 2
    assert "splits/test.txt" in capsys.readouterr().err


def test_an_interrupted_conversion_goes_on(
    sisug: Command, tmp_path: Path, labels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = image_masks(tmp_path / "many", [f"{number:02}" for number in range(30)])
    assert sisug("data", "convert", tree, "--to", "whole", "--labels", labels) == 0
    read, calls = converting.read_pair, [0]

    def interrupted(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 12:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(converting, "read_pair", interrupted)
    assert sisug("data", "convert", tree, "--to", "broken", "--labels", labels) == 130
    with pytest.raises(DataError, match="not finished"):
        ImageMaskFolder(tmp_path / "broken", 16)
    kept = content(tmp_path / "broken")
    assert 5 < len(kept) < 60
    assert not list((tmp_path / "broken").rglob("*.tmp"))
    whole = content(tmp_path / "whole")
    assert all(whole[name] == data for name, data in kept.items() if name != "conversion.json")
    monkeypatch.setattr(converting, "read_pair", read)
    assert sisug("data", "convert", tree, "--to", "broken", "--labels", labels) == 0
    assert content(tmp_path / "broken") == whole


@pytest.mark.slow
def test_a_killed_conversion_goes_on(sisug: Command, tmp_path: Path, labels: str) -> None:
    tree = image_masks(tmp_path / "many", [f"{number:03}" for number in range(300)], size=64)
    command = [sys.executable, "-m", "sisug", "data", "convert", str(tree), "--to", "out", "--labels", labels]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while process.poll() is None and len(list((tmp_path / "out").rglob("*.png"))) < 60:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert sisug("data", "convert", tree, "--to", "out", "--labels", labels) == 0
    assert sisug("data", "convert", tree, "--to", "whole", "--labels", labels) == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_full_disk_leaves_whole_files(
    sisug: Command,
    tree: Path,
    labels: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = Image.Image.save

    def full(self: Image.Image, target: Any, *arguments: Any, **options: Any) -> None:
        if "b" in Path(getattr(target, "name", "")).parts:
            raise OSError(28, "No space left on device")
        real(self, target, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    assert sisug("data", "convert", tree, "--to", "out", "--labels", labels) == cli.FULL_DISK
    assert "the disk is full" in capsys.readouterr().err
    monkeypatch.undo()
    os.chdir(tmp_path)
    assert sisug("data", "convert", tree, "--to", tmp_path / "out", "--labels", labels) == 0
    assert len(ImageMaskFolder(tmp_path / "out", 16)) == 4


def test_folders_that_are_not_written_to(
    sisug: Command, tree: Path, labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(message: str, *arguments: object) -> None:
        assert sisug("data", "convert", tree, "--labels", labels, *arguments) == 2
        assert message in capsys.readouterr().err

    refused("nowhere to write")
    refused("lies within", "--to", tree / "out")
    refused("lies within", "--to", tree)
    save(tmp_path / "mine/photo.png", image(0))
    refused("is not empty", "--to", "mine")
    refused("is a file", "--to", "face.json")
    assert sisug("data", "convert", tree, "--to", "out", "--labels", labels) == 0
    refused("another conversion (other: resolution)", "--to", "out", "--resolution", 8)
    with FileLock(tmp_path / "out/.lock"):
        refused("being written", "--to", "out")
    (tmp_path / "out/conversion.json").write_text("{")
    refused("cannot be read", "--to", "out")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.png"]


def test_plot_of_a_folder(sisug: Command, tree: Path, labels: str, tmp_path: Path) -> None:
    options = ("--labels", labels, "--resolution", 16, "--rows", 1, "--columns", 2, "--out", "plot.png")
    assert sisug("data", "plot", "--data", tree, *options) == 0
    picture = np.asarray(Image.open(tmp_path / "plot.png"))
    shown = LabelSet.from_dict(json.loads(Path(labels).read_text()))
    assert {tuple(colour) for colour in picture[:128, 128:256].reshape(-1, 3)} == set(shown.palette)
