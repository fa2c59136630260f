"""A folder of images listed and checked: what is found, counted, refused, and how the report reads."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from sisug.data.images import scan as scanning
from sisug.data.images.scan import FolderReport, scan_folder
from sisug.errors import ConfigError, DataError
from sisug.labels.image_files import Change, Problem
from sisug.labels.image_folders import check_folder, digest, list_images


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two good images, eight of other kinds, and files that are no images."""
    folder = tmp_path / "photos"
    save(folder / "good.png")
    save(folder / "deep/er/good.webp")
    for i in range(7):
        save(folder / f"grey{i}.png", "L")
    save(folder / "inks.tif", "CMYK")
    save(folder / "small.png", size=(15, 40))
    (folder / "empty.jpg").touch()
    (folder / "page.png").write_text("<html>")
    (folder / "notes.txt").touch()
    (folder / "phone.HEIC").touch()
    (folder / "phone2.heic").touch()
    return folder


def test_lists_every_image_by_name(tmp_path: Path) -> None:
    names = ["b/1.JPG", "a.png", "b.webp", "b/c/d.bmp", "z.TiFf"]
    for name in [*names, ".hidden.png", ".cache/a.png", "__MACOSX/a.png", "b/._1.JPG", "b/__MACOSX/x.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * len(name))
    for name in ("set.h5", "print.eps", "film.mpg", "list"):  # Pillow knows the first three by name
        (tmp_path / name).touch()
    files, others = list_images(tmp_path)
    assert [file.name for file in files] == sorted(names)
    assert [file.size for file in files] == [len(name) for name in sorted(names)]
    assert all(file.mtime_ns == (tmp_path / file.name).stat().st_mtime_ns for file in files)
    assert others == {".h5": 1, ".eps": 1, ".mpg": 1, "without suffix": 1}


def test_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere/a.png")
    save(tmp_path / "photos/b/c.png")
    (tmp_path / "photos/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/b/up").symlink_to(tmp_path / "photos")
    assert [file.name for file in list_images(tmp_path / "photos")[0]] == ["b/c.png", "linked/a.png"]


def test_report_counts_every_kind(mixed: Path) -> None:
    report = scan_folder(mixed, 16)
    counts = {kind: group.count for kind, group in report.groups.items()}
    assert counts == {"grey": 7, "CMYK": 1, "too small": 1, "unreadable": 2}
    assert (report.found, report.left_out, report.usable) == (13, 3, 10) == (13, 3, report.found - 3)
    assert report.groups["grey"].examples == [f"grey{i}.png" for i in range(5)]
    assert report.groups["unreadable"].examples == ["empty.jpg (empty file)", "page.png (not an image)"]
    assert report.text().splitlines() == [
        "photos: 10 of 13 images usable at 16 px",
        "  2 unreadable: empty.jpg (empty file), page.png (not an image)",
        "  1 smaller than 16 px: small.png (15x40)",
        "  7 grey, converted to RGB: grey0.png, grey1.png, grey2.png, grey3.png, grey4.png and 2 more",
        "  1 CMYK, converted to RGB: inks.tif",
        "  3 other files (2 .heic, 1 .txt) left aside",
    ]
    assert FolderReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_background_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png", "RGBA")
    assert (
        "1 with transparency, laid on the background rgb(1, 2, 3): a.png" in scan_folder(tmp_path, 16, (1, 2, 3)).text()
    )


def test_every_kind_of_finding_has_its_words(tmp_path: Path) -> None:
    assert set(scanning._MEANINGS) == {*get_args(Problem), *get_args(Change)}
    assert set(scanning._PROBLEMS) == set(get_args(Problem))


def test_unusable_images_are_refused_or_left_out(mixed: Path) -> None:
    report = scan_folder(mixed, 16)
    with pytest.raises(DataError) as caught:
        report.check(mixed, skip_bad=False)
    assert f"3 of 13 images in {mixed} cannot be used: 2 unreadable: empty.jpg" in caught.value.state
    assert "1 smaller than 16 px: small.png (15x40)" in caught.value.state
    assert "at least 16x16" in caught.value.cause
    assert "skip_bad: true" in caught.value.remedy
    report.check(mixed, skip_bad=True)
    with pytest.raises(DataError) as caught:
        scan_folder(mixed, 17).check(mixed, skip_bad=True)  # all are smaller
    assert "13 of 13" in caught.value.state
    assert "skip_bad" not in caught.value.remedy


def test_files_that_vanish_between_listing_and_reading_are_unreadable(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_then_delete(folder: Path) -> object:
        listed = list_images(folder)
        (folder / "good.png").unlink()
        return listed

    monkeypatch.setattr(scanning, "list_images", list_then_delete)
    assert "good.png (No such file or directory)" in scan_folder(mixed, 16).text()


def missing(folder: Path) -> Path:
    return folder / "nothing"


def a_file(folder: Path) -> Path:
    (folder / "photos.zip").write_bytes(b"PK")
    return folder / "photos.zip"


def without_images(folder: Path) -> Path:
    (folder / "a.heic").touch()
    (folder / "b.txt").touch()
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "nothing does not exist.*correct the path"),
        (a_file, "photos.zip is a file.*unpack an archive"),
        (lambda folder: folder, "holds no images.*it is empty"),
        (without_images, r"holds no images.*2 other files \(1 \.heic, 1 \.txt\).*convert others"),
    ],
)
def test_what_is_no_folder_of_images_is_refused(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    folder = make(tmp_path)
    for refuse in (check_folder, list_images, lambda path: scan_folder(path, 16)):
        with pytest.raises(DataError, match=message):
            refuse(folder)


def test_a_folder_in_it_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "locked/b.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"locked cannot be read.*Permission denied"):
        list_images(tmp_path)


@pytest.mark.parametrize("resolution", [0, 3, 5000])
def test_resolution_out_of_range(tmp_path: Path, resolution: int) -> None:
    with pytest.raises(ConfigError, match=f"resolution {resolution}"):
        scan_folder(tmp_path, resolution)


def test_background_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="background"):
        scan_folder(tmp_path, 16, (0, 0, 256))


def test_names_that_are_not_text_are_shown_all_the_same(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.png"
    with open(path, "wb"):  # noqa: PTH123  # pathlib takes no bytes
        pass
    report = scan_folder(tmp_path, 16)
    assert report.text().encode().count(rb"\udcff.png (empty file)") == 1
    assert json.dumps(report.to_dict())
    assert len(digest(list_images(tmp_path)[0])) == 64


def test_progress_is_logged(mixed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(scanning, "PROGRESS_EVERY", 0.0)
    with caplog.at_level(logging.INFO, "sisug"):
        scan_folder(mixed, 16)
    assert caplog.messages[-1].startswith("13 of 13 images checked, ")


def test_order_is_that_of_the_names_whatever_thread_is_first(tmp_path: Path) -> None:
    for i in range(40):
        side = 400 if i % 7 == 0 else 16
        Image.fromarray(np.full((side, side), i, np.uint8)).save(tmp_path / f"{i:02}.png")
    seen: list[tuple[str, int]] = []
    files, _ = list_images(tmp_path)

    def use(file: scanning.ImageFile, examined: scanning.Examined) -> None:
        assert examined.pixels is not None
        seen.append((file.name, int(examined.pixels[0, 0, 0])))

    scanning.examine_all(tmp_path, files, 16, (0, 0, 0), use)
    assert seen == [(f"{i:02}.png", i) for i in range(40)]


def test_an_error_of_the_receiver_ends_the_work(mixed: Path) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        scanning.examine_all(mixed, list_images(mixed)[0], 16, (0, 0, 0), fail)


def test_digest_depends_on_names_and_sizes_only(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", size=(17, 16))
    first = digest(list_images(tmp_path)[0])
    os.utime(tmp_path / "a.png", (1, 1))
    assert digest(list_images(tmp_path)[0]) == first
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    second = digest(list_images(tmp_path)[0])
    with (tmp_path / "c.png").open("ab") as file:
        file.write(b"\0")
    assert len({first, second, digest(list_images(tmp_path)[0])}) == 3
