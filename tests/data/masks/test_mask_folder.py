"""Folders of images and masks: pairing, reading, subsets, refusals, and the loaders' contract."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.masks.trees import FACE, image, image_masks, mask, save
from PIL import Image

from sisug.data.masks import FolderPairs, ImageMaskFolder, check_batch
from sisug.data.masks.datamodule import ImageMaskDataModule
from sisug.data.masks.reading import read_pair
from sisug.data.masks.splits import read_names
from sisug.errors import ConfigError, DataError
from sisug.labels.label_sets import IGNORE_COLOUR

NAMES = ["a", "b/1", "b/2", "c"]


@pytest.fixture
def labels(tmp_path: Path) -> str:
    path = tmp_path / "face.json"
    path.write_text(json.dumps(FACE.to_dict()))
    return str(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return image_masks(tmp_path / "tree", NAMES)


def test_samples_are_the_files(tree: Path, labels: str) -> None:
    dataset = ImageMaskFolder(tree, 16, labels)
    assert dataset.names == tuple(NAMES)
    assert dataset.label_set == FACE
    for index, sample in enumerate(dataset):  # type: ignore[var-annotated, arg-type]
        pixels = torch.from_numpy(image(index)).permute(2, 0, 1)
        assert torch.equal(((sample["image"] + 1) * 127.5).round().byte(), pixels)
        assert np.array_equal(sample["mask"], mask(index))
        assert sample["index"] == index
    assert sample["mask"].dtype == torch.int64


def test_masks_in_colours_and_other_suffixes(tree: Path, labels: str) -> None:
    (tree / "masks/c.png").unlink()
    colours = np.array([*FACE.palette, IGNORE_COLOUR], np.uint8)
    numbers = mask(3).astype(int)
    numbers[0, :4] = 3
    Image.fromarray(colours[numbers]).save(tree / "masks/c.bmp")
    numbers[0, :4] = 255
    assert np.array_equal(ImageMaskFolder(tree, 16, labels)[3]["mask"], numbers)


def test_other_sizes_are_resized_without_blending(tree: Path, labels: str) -> None:
    sample = ImageMaskFolder(tree, 8, labels)[0]
    assert np.array_equal(sample["mask"], mask(0)[1::2, 1::2])
    assert sample["image"].shape == (3, 8, 8)
    large = np.kron(mask(0), np.ones((3, 3), np.uint8))
    save(tree / "masks/a.png", large)
    assert np.array_equal(ImageMaskFolder(tree, 16, labels)[0]["mask"], mask(0))


def test_missing_and_extra_files_are_named(tree: Path, labels: str) -> None:
    (tree / "masks/a.png").unlink()
    (tree / "images/b/2.png").unlink()
    save(tree / "images/c.webp", image(9))
    with pytest.raises(DataError) as error:
        ImageMaskFolder(tree, 16, labels)
    for line in (
        "1 images without a mask: images/a.png",
        "1 masks without an image: masks/b/2.png",
        "1 names used twice in images: c.png and c.webp",
    ):
        assert line in error.value.state
    assert "data check" in error.value.remedy
    assert ImageMaskFolder(tree, 16, labels, skip_bad=True).names == ("b/1", "c")


def test_subsets_keep_their_order(tree: Path, labels: str, tmp_path: Path) -> None:
    whole = ImageMaskFolder(tree, 16, labels)
    part = whole.subset(["c", "a"])
    assert np.array_equal(part[0]["mask"], mask(3))
    assert part[0]["index"] == 0
    (tmp_path / "list.txt").write_text("c\n\na\n")
    again = ImageMaskFolder(tree, 16, labels, names=tmp_path / "list.txt")
    assert again.names == part.names == ("c", "a")
    assert again.digest == part.digest != whole.digest
    assert len(whole) == 4


def test_digest_follows_names_sizes_and_labels(tree: Path, labels: str, tmp_path: Path) -> None:
    first = ImageMaskFolder(tree, 16, labels).digest
    assert ImageMaskFolder(tree, 8, labels).digest == first
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**FACE.to_dict(), "classes": ["skin", "right", "left"]}))
    assert ImageMaskFolder(tree, 16, str(other)).digest != first
    save(tree / "images/a.png", image(0, 32))
    assert ImageMaskFolder(tree, 16, labels).digest != first


def test_crosses_process_borders(tree: Path, labels: str) -> None:
    dataset = pickle.loads(pickle.dumps(ImageMaskFolder(tree, 16, labels)))
    assert np.array_equal(dataset[1]["mask"], mask(1))


def test_the_folder_knows_its_label_set(tree: Path, labels: str) -> None:
    with pytest.raises(ConfigError, match=r"without a label set.*--labels"):
        ImageMaskFolder(tree, 16)
    (tree / "labels.json").write_text(json.dumps(FACE.to_dict()))
    assert ImageMaskFolder(tree, 16).label_set == FACE
    with pytest.raises(DataError, match=r"'celebamask-hq'.*written with 'face'"):
        ImageMaskFolder(tree, 16, "celebamask-hq")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tree: save(tree / "masks/a.png", np.full((16, 16), 7, np.uint8)), "7 .256 px"),
        (lambda tree: save(tree / "masks/a.png", image(5)), "colours"),
        (lambda tree: (tree / "masks/a.png").write_bytes(b"no picture"), "not a picture"),
        (lambda tree: (tree / "images/a.png").write_bytes(b"no picture"), "unreadable"),
        (lambda tree: save(tree / "images/a.png", image(0, 8)), "too small .8x8.*lower resolution"),
    ],
)
def test_bad_files_are_named_when_they_are_read(tree: Path, labels: str, damage: Any, message: str) -> None:
    damage(tree)
    dataset = ImageMaskFolder(tree, 16, labels)
    with pytest.raises(DataError, match=message) as error:
        dataset[0]
    assert "a.png" in error.value.state
    dataset[1]


@pytest.mark.parametrize("part", ["images", "masks"])
def test_shapes_that_are_not_square_are_refused_at_once(tree: Path, labels: str, part: str) -> None:
    pixels = (image(0) if part == "images" else mask(0))[:12]
    save(tree / part / "a.png", pixels)
    with pytest.raises(DataError, match=rf"{part}/a.png has 16x12 pixels.*square"):
        ImageMaskFolder(tree, 8, labels)


def test_centres_of_images_and_masks_are_taken_on_request(tree: Path, labels: str) -> None:
    """A scene of 24x16 pixels with a mask of half the size: eight columns of the image are left out."""
    wide, half = np.tile(image(0), (1, 2, 1))[:, :24], np.tile(mask(0), 2)[:8, :12]
    save(tree / "images/a.png", wide)
    save(tree / "masks/a.png", half)
    dataset = ImageMaskFolder(tree, 16, labels, crop="centre")
    sample = dataset[0]
    assert np.array_equal(((sample["image"] + 1) * 127.5).round().byte().permute(1, 2, 0), wide[:, 4:20])
    assert np.array_equal(sample["mask"], np.kron(half[:, 2:10], np.ones((2, 2), np.uint8)))
    assert np.array_equal(dataset[1]["mask"], mask(1))  # square ones are as before
    with pytest.raises(DataError, match=r"images/a.png has 24x16 pixels.*--crop centre"):
        ImageMaskFolder(tree, 16, labels)


def test_the_crop_is_part_of_the_digest(tree: Path, labels: str) -> None:
    assert ImageMaskFolder(tree, 16, labels).digest != ImageMaskFolder(tree, 16, labels, crop="centre").digest


@pytest.mark.parametrize(
    ("image_size", "mask_size", "fits"),
    [
        ((24, 16), (16, 24), False),
        ((24, 16), (24, 20), False),
        ((333, 500), (333, 500), True),
        ((333, 500), (167, 250), True),  # rounded
        ((333, 500), (160, 250), False),
    ],
)
def test_centres_need_one_shape(
    tree: Path, labels: str, image_size: tuple[int, int], mask_size: tuple[int, int], fits: bool
) -> None:
    save(tree / "images/a.png", np.zeros((image_size[1], image_size[0], 3), np.uint8))
    save(tree / "masks/a.png", np.zeros((mask_size[1], mask_size[0]), np.uint8))
    if fits:
        assert ImageMaskFolder(tree, 16, labels, crop="centre")[0]["mask"].shape == (16, 16)
        return
    with pytest.raises(DataError, match=rf"a has an image of {image_size[0]}x{image_size[1]} pixels and a mask of"):
        ImageMaskFolder(tree, 8, labels, crop="centre")
    pairs = FolderPairs(tree, labels, crop="centre")
    with pytest.raises(DataError, match="shapes differ"):
        read_pair(pairs, "a", 8)


def test_photos_that_lie_on_their_side_have_the_masks_shape(tree: Path, labels: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.repeat(np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], 16, axis=0), 3, axis=2)
    (tree / "images/a.png").unlink()
    Image.fromarray(np.rot90(upright).copy()).save(tree / "images/a.jpg", exif=exif, quality=95)
    save(tree / "masks/a.png", np.zeros((16, 24), np.uint8))
    sample = ImageMaskFolder(tree, 16, labels, crop="centre")[0]
    columns = (sample["image"][0].mean(0) + 1) * 127.5
    assert np.allclose(columns, np.arange(40, 200, 10), atol=4)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"resolution": 2}, ConfigError, "4 to 4096"),
        ({"tolerance": 300}, ConfigError, "tolerance 300"),
        ({"names": []}, ConfigError, "empty list"),
        ({"names": ["a", "z"]}, DataError, "1 of 2 listed names.*: z"),
        ({"names": ["a", "a"]}, DataError, "twice"),
        ({"names": "none.txt"}, DataError, "none.txt cannot be read"),
        ({"masks": "labels"}, DataError, "no folder labels.*matched by name"),
        ({"labels": "moon"}, DataError, "no label set 'moon'.*celebamask-hq"),
    ],
)
def test_bad_arguments(tree: Path, labels: str, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ImageMaskFolder(tree, **({"resolution": 16, "labels": labels} | options))


def test_empty_folders(tmp_path: Path, labels: str) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    with pytest.raises(DataError, match="holds no images"):
        FolderPairs(tmp_path, labels)
    save(tmp_path / "images/a.png", image(0))
    save(tmp_path / "masks/b.png", mask(0))
    with pytest.raises(DataError, match="without a mask"):
        ImageMaskFolder(tmp_path, 16, labels, skip_bad=True)


def test_batches_that_cannot_be_scored() -> None:
    images, masks = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
    check_batch(images, masks, FACE)
    for wrong, message in (
        ((images[:0], masks[:0]), "0 images"),
        ((images, masks[:1]), "2 images and 1 masks"),
        ((images, masks[:, :2]), "4x4 pixels and masks of 4x2"),
        ((images, masks + 3), r"\[3\].*'face'"),
    ):
        with pytest.raises(DataError, match=message):
            check_batch(*wrong, FACE)


# --- loaders -------------------------------------------------------------------------------------------------------


def test_names_decide_the_split(tmp_path: Path, labels: str) -> None:
    tree = image_masks(tmp_path / "many", [f"{number:03}" for number in range(60)], size=4)
    first = ImageMaskDataModule(str(tree), 4, labels, batch_size=4, val_share=0.2, test_share=0.2)
    counts = {split: len(names) for split, names in first.names.items()}
    assert sum(counts.values()) == 60
    assert 4 <= counts["val"] <= 22
    assert 4 <= counts["test"] <= 22
    image_masks(tree, [f"{number:03}" for number in range(60)] + ["more"], size=4)
    second = ImageMaskDataModule(str(tree), 4, labels, batch_size=4, val_share=0.2, test_share=0.2)
    for split, names in first.names.items():
        assert set(names) <= set(second.names[split])


def test_lists_decide_the_split(tree: Path, labels: str) -> None:
    (tree / "splits").mkdir()
    (tree / "splits/train.txt").write_text("c\na\n")
    (tree / "splits/val.txt").write_text("b/1\n")
    data = ImageMaskDataModule(str(tree), 16, labels, batch_size=2)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert sorted(batch["index"].tolist()) == [0, 1]
    assert batch["image"].shape == (2, 3, 16, 16)
    assert batch["mask"].dtype == torch.int64
    (held_out,) = data.val_dataloader()
    assert np.array_equal(held_out["mask"][0], mask(1))
    with pytest.raises(DataError, match="no test images"):
        data.setup("test")
    (tree / "splits/val.txt").write_text("b/7\n")
    with pytest.raises(DataError, match="b/7"):
        ImageMaskDataModule(str(tree), 16, labels, batch_size=2)


def test_a_list_for_test_alone_keeps_its_images_out_of_training(tree: Path, labels: str) -> None:
    (tree / "splits").mkdir()
    (tree / "splits/test.txt").write_text("c\n")
    data = ImageMaskDataModule(str(tree), 16, labels, batch_size=1, val_share=0.4)
    assert data.names["test"] == ["c"]
    assert sorted(data.names["train"] + data.names["val"]) == ["a", "b/1", "b/2"]


@pytest.mark.parametrize(("first", "second"), [("train", "test"), ("train", "val"), ("val", "test")])
def test_lists_that_share_a_name_are_refused(tree: Path, labels: str, first: str, second: str) -> None:
    (tree / "splits").mkdir()
    (tree / f"splits/{first}.txt").write_text("a\nb/1\n")
    (tree / f"splits/{second}.txt").write_text("c\nb/1\n")
    with pytest.raises(DataError, match=rf"1 names are both in splits/{first}.txt and in splits/{second}.txt .*: b/1"):
        ImageMaskDataModule(str(tree), 16, labels, batch_size=1)


@pytest.mark.parametrize("form", ["{}", "\ufeff{}", "\ufeff{}\n", "\n\n  {}  \n"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_of_any_editor_name_the_same(tmp_path: Path, form: str, end: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(form.format(end.join(["a", "b c", "größe\u2028x"])).encode())
    assert read_names(path) == ["a", "b c", "größe\u2028x"]


def test_names_in_lists_are_bytes_as_names_of_files_are(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"na\xefve\n")
    assert read_names(tmp_path / "list.txt") == [os.fsdecode(b"na\xefve")]


@pytest.mark.parametrize("content", ["a\nb\n".encode("utf-16"), "a\nb\n".encode("utf-16-le"), b"", b"\xef\xbb\xbf\n"])
def test_lists_that_are_no_text_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError):
        read_names(tmp_path / "list.txt")


def test_mirroring_swaps_left_and_right(tree: Path, labels: str) -> None:
    class Training:
        training, current_epoch = True, 0

    data = ImageMaskDataModule(str(tree), 16, labels, batch_size=1, val_share=0, test_share=0, flip=True)
    data.trainer = Training()  # type: ignore[assignment]
    whole = data.dataset("train")
    swapped = np.array([0, 2, 1])
    seen = set()
    for epoch in range(6):
        Training.current_epoch = epoch
        sample = {key: torch.as_tensor(value)[None] for key, value in whole[2].items()}
        out = data.on_after_batch_transfer(sample, 0)
        mirrored = bool((out["image"] != sample["image"]).any())
        seen.add(mirrored)
        expected = swapped[mask(2)[:, ::-1]] if mirrored else mask(2)
        assert np.array_equal(out["mask"][0], expected)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 40}, "batches of 40"),
        ({"val_share": 0.6, "test_share": 0.5}, "less than 1 together"),
    ],
)
def test_loaders_that_cannot_work(tree: Path, labels: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        ImageMaskDataModule(str(tree), 16, labels, **options)
