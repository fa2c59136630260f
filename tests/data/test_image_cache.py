"""The cache of prepared images: equal to the files, made once, rebuilt when damaged, whole or absent."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sisug.data.images import cache, scan
from sisug.data.images.cache import IMAGES, RECORD, PreparedImages
from sisug.errors import DataError, RunError
from sisug.labels import image_folders
from sisug.labels.image_files import examine


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images of noise, 20 px."""
    folder = tmp_path / "my photos"
    (folder / "more").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (7, 20, 20, 3), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / (f"{i}.png" if i < 4 else f"more/{i}.png"))
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from now on."""
    names: list[str] = []

    def count(path: Path, *arguments: object) -> object:
        names.append(path.name)
        return examine(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(scan, "examine", count)
    return names


def prepared(photos: Path, resolution: int = 16, skip_bad: bool = False) -> PreparedImages:
    return PreparedImages(photos, resolution, skip_bad=skip_bad, caches=photos.parent / "caches")


def assert_sound(images: PreparedImages, photos: Path) -> None:
    assert images.names == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    for index, name in enumerate(images.names):
        pixels = examine(photos / name, images.resolution, images.background).pixels
        sample = images[index]
        assert sample["index"] == index
        assert sample["image"].dtype == torch.float32
        assert torch.allclose(sample["image"] * 127.5 + 127.5, torch.from_numpy(pixels).float(), atol=1e-4)
        assert torch.equal(sample["image"].flip(-1), images[index + len(images)]["image"])


def leftovers(photos: Path) -> list[str]:
    return [path.name for path in (photos.parent / "caches/images").iterdir() if path.name.startswith(".")]


def test_holds_the_files_and_is_made_once(photos: Path, decoded: list[str]) -> None:
    first = prepared(photos)
    assert_sound(first, photos)
    assert len(decoded) == len(first) == 7
    again = prepared(photos)
    assert len(decoded) == 7
    assert_sound(again, photos)
    assert (again.report, again.digest) == (first.report, first.digest)
    assert again.digest == image_folders.digest(image_folders.list_images(photos)[0])
    assert leftovers(photos) == []
    assert first.folder.name.startswith("my_photos-16px-")


def test_is_a_plain_array_for_others_to_read(photos: Path) -> None:
    images = prepared(photos)
    array = np.load(images.folder / IMAGES)
    assert (array.shape, array.dtype) == ((7, 3, 16, 16), np.uint8)
    assert (images.folder / IMAGES).stat().st_size == 128 + array.size


def test_batches_equal_single_images(photos: Path) -> None:
    images = prepared(photos)
    batch = images.__getitems__([3, 9, 0, 13])
    assert batch["index"].tolist() == [3, 2, 0, 6]
    for row, index in enumerate([3, 9, 0, 13]):
        assert torch.equal(batch["image"][row], images[index]["image"])
    for index in (-1, 14):
        with pytest.raises(IndexError):
            images[index]


def touch(photos: Path) -> None:
    os.utime(photos / "2.png", ns=(1, 1))


def grow(photos: Path) -> None:
    before = (photos / "2.png").stat()
    with (photos / "2.png").open("ab") as file:
        file.write(b"\0")
    os.utime(photos / "2.png", ns=(before.st_atime_ns, before.st_mtime_ns))


def rename(photos: Path) -> None:
    (photos / "2.png").rename(photos / "22.png")


def remove(photos: Path) -> None:
    (photos / "2.png").unlink()


def add(photos: Path) -> None:
    shutil.copy(photos / "2.png", photos / "more/8.png")


@pytest.mark.parametrize("change", [touch, grow, rename, remove, add])
def test_a_changed_folder_is_prepared_again(photos: Path, decoded: list[str], change: Callable[[Path], None]) -> None:
    prepared(photos)
    decoded.clear()
    change(photos)
    images = prepared(photos)
    assert len(decoded) == len(images)
    assert_sound(images, photos)


def test_everything_that_decides_a_pixel_has_its_own_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = photos.parent / "caches"
    folders = {prepared(photos).folder, prepared(photos, 17).folder}
    folders.add(PreparedImages(photos, 16, (0, 0, 0), caches=caches).folder)
    shutil.copytree(photos, photos.parent / "other/my photos")
    folders.add(PreparedImages(photos.parent / "other/my photos", 16, caches=caches).folder)
    assert prepared(photos, skip_bad=True).folder in folders
    monkeypatch.setattr(cache, "VERSION", 999)
    folders.add(prepared(photos).folder)
    assert len(folders) == 5


def truncate(folder: Path) -> None:
    with (folder / IMAGES).open("rb+") as file:
        file.truncate((folder / IMAGES).stat().st_size - 1)


def empty(folder: Path) -> None:
    (folder / IMAGES).write_bytes(b"")


def zero_the_end(folder: Path) -> None:  # what a power cut leaves of a file whose length is already on disk
    np.load(folder / IMAGES, mmap_mode="r+")[3:] = 0


def another_shape(folder: Path) -> None:
    np.save(folder / IMAGES, np.zeros((7, 3, 8, 8), np.uint8))


def another_kind(folder: Path) -> None:
    np.save(folder / IMAGES, np.load(folder / IMAGES).astype(np.float32))


def lose_record(folder: Path) -> None:
    (folder / RECORD).unlink()


def cut_record(folder: Path) -> None:
    (folder / RECORD).write_text((folder / RECORD).read_text()[:100])


def strange_record(folder: Path) -> None:
    (folder / RECORD).write_text("[1, 2]")


def short_record(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, "names": record["names"][:-1]}))


def short_sums(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, "crc32": record["crc32"][:-1]}))


@pytest.mark.parametrize(
    "damage",
    [
        truncate, empty, zero_the_end, another_shape, another_kind, lose_record, cut_record, strange_record,
        short_record, short_sums,
    ],
)  # fmt: skip
def test_a_damaged_cache_is_made_again(
    photos: Path, decoded: list[str], caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    damage(prepared(photos).folder)
    decoded.clear()
    with caplog.at_level(logging.WARNING, "sisug"):
        images = prepared(photos)
    assert "again" in caplog.text
    assert len(decoded) == 7
    assert_sound(images, photos)
    assert leftovers(photos) == []


def spoil(photos: Path) -> None:
    (photos / "0.png").write_bytes(b"no image")
    Image.new("RGB", (9, 30)).save(photos / "5.png")


def test_bad_images_are_refused_and_remembered(photos: Path, decoded: list[str]) -> None:
    spoil(photos)
    for _ in range(2):
        with pytest.raises(DataError, match=r"2 of 8 images .* cannot be used: 1 unreadable: 0.png .*skip_bad: true"):
            prepared(photos)
        assert leftovers(photos) == []
    assert len(decoded) == 8  # once
    images = prepared(photos, skip_bad=True)
    assert len(decoded) == 8
    assert images.names == ["1.png", "2.png", "3.png", "more/4.png", "more/5.png", "more/6.png"]
    assert images.report.left_out == 2
    assert np.load(images.folder / IMAGES).shape == (6, 3, 16, 16)
    assert images.digest == image_folders.digest(
        [f for f in image_folders.list_images(photos)[0] if f.name in images.names]
    )
    for index, name in enumerate(images.names):
        expected = examine(photos / name, 16, images.background).pixels
        assert np.array_equal(np.load(images.folder / IMAGES)[index], expected)


def test_without_any_good_image_nothing_is_kept(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="7 of 7 images"):
        prepared(photos, skip_bad=True)
    assert [path.suffix for path in (photos.parent / "caches/images").iterdir()] == [".lock"]


def full_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)


def full_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(cache, "examine_all", refuse)


@pytest.mark.parametrize("full", [full_from_the_start, full_on_the_way])
def test_full_disk(photos: Path, full: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        full(patch)
        with pytest.raises(RunError, match=r"my_photos-16px.* cannot be written.*SISUG_CACHE"):
            prepared(photos)
    assert leftovers(photos) == []
    assert_sound(prepared(photos), photos)


def test_a_full_disk_shows_before_anything_is_decoded(
    photos: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full_from_the_start(monkeypatch)
    with pytest.raises(RunError, match="No space left"):
        prepared(photos)
    assert decoded == []


def test_file_systems_that_cannot_reserve_space_will_do(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert_sound(prepared(photos), photos)
    monkeypatch.delattr(os, "posix_fallocate")
    assert_sound(prepared(photos, 17), photos)


def test_cache_folder_that_cannot_be_made(photos: Path) -> None:
    (photos.parent / "caches").write_text("a file")
    with pytest.raises(RunError, match="SISUG_CACHE"):
        prepared(photos)


def test_an_interrupted_preparation_leaves_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "examine_all", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepared(photos)
    assert leftovers(photos) == []


def test_what_a_killed_run_left_is_removed(photos: Path) -> None:
    folder = prepared(photos).folder
    shutil.rmtree(folder)
    (folder.parent / f".{folder.name}.0123").mkdir()
    assert_sound(prepared(photos), photos)
    assert leftovers(photos) == []


def test_those_who_come_at_once_prepare_once(photos: Path, decoded: list[str]) -> None:
    got: list[PreparedImages] = []
    threads = [threading.Thread(target=lambda: got.append(prepared(photos))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 7
    for images in got:
        assert_sound(images, photos)


def test_pickle_for_data_workers_is_small(photos: Path) -> None:
    images = prepared(photos, 20)
    content = pickle.dumps(images)
    assert len(content) < 7 * 3 * 20 * 20 / 2
    assert torch.equal(pickle.loads(content)[4]["image"], images[4]["image"])


def test_default_place_is_the_cache_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(photos.parent / "elsewhere"))
    assert PreparedImages(str(photos), 16).folder.parent == photos.parent / "elsewhere/images"
