"""`sisug data` subcommands: look at the data before training on it, and write it in a form that reads fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset

from sisug.common.atomic_file import atomic_write
from sisug.data.avatars.dataset import AvatarsDataset, Split
from sisug.data.avatars.plotting import plot as plot_dataset
from sisug.data.images.scan import WHITE, scan_folder
from sisug.data.masks.checking import check_pairs
from sisug.data.masks.converting import convert as convert_tree
from sisug.data.masks.dataset import ImageMaskFolder
from sisug.data.masks.layouts import detect, open_pairs
from sisug.data.masks.pairs import Crop
from sisug.errors import ConfigError, printable
from sisug.labels.image_files import Colour

PROBLEMS = 1
"""Exit code of `sisug data check` where anything is wrong with the data."""

SMALLEST = 4
"""Resolution at which images are checked where none is asked for: none is too small."""

Format = Literal["auto", "image-masks", "celebamask-hq", "images"]
"""Layouts of data; `auto` tells them from what a folder holds."""


def check(
    folder: Path,
    labels: str | None = None,
    format: Format = "auto",
    resolution: int | None = None,
    tolerance: int = 0,
    crop: Crop = "none",
) -> str:
    """Read every image and mask: sizes, classes, and what is wrong; the exit code is 1 where anything is.

    Args:
        folder: `images/` with `masks/`, CelebAMask-HQ as published, or images only (AFHQ, an LSUN export).
        labels: name of the masks' label set, or its JSON file; left out, the folder's own `labels.json`.
        format: how the folder is laid out; `auto` finds out.
        resolution: height and width in pixels that images will be used at; smaller ones are a problem.
        tolerance: largest difference per colour channel, 0 to 255, at which a pixel still counts as the nearest class.
        crop: `centre` where only the largest centred square of images and masks will be used; `none` counts those that
            are not square as problems.

    Returns:
        The report.

    Raises:
        ConfigError: no label set is named, or a value is out of range.
        DataError: the folder is missing, empty or a database.
    """
    place = folder.expanduser()
    layout = detect(place) if format == "auto" else format
    pairs = open_pairs(place, layout, labels, tolerance, crop)
    if pairs is None:
        images = scan_folder(place, SMALLEST if resolution is None else resolution)
        text, problems = images.text(), images.left_out
    else:
        report = check_pairs(pairs, resolution)
        text, problems = report.text(), report.problems.count
        if not report.pairs:
            problems = max(problems, 1)
    if problems:
        sys.stdout.write(printable(f"{text}\n", keep="\n"))
        raise SystemExit(PROBLEMS)
    return text


def convert(
    folder: Path,
    to: Path | None = None,
    format: Format = "auto",
    resolution: int | None = None,
    labels: str | None = None,
    tolerance: int = 0,
    skip_bad: bool = False,
    background: Colour = WHITE,
    crop: Crop = "none",
) -> str:
    """Write a data set as a clean tree: PNG images and index masks of one size. Given again, it goes on.

    Args:
        folder: `images/` with `masks/`, CelebAMask-HQ as published, or images only (AFHQ, an LSUN export).
        to: folder to write (needed): new, empty, or a tree of the same command. The source is only read.
        format: how the folder is laid out; `auto` finds out.
        resolution: height and width in pixels; left out, each mask's own (CelebAMask-HQ: 512).
        labels: label set of the masks, or its JSON file. CelebAMask-HQ: celebamask-hq (left out),
            celebamask-hq-bisenet, or celebamask-hq-15.
        tolerance: largest difference per colour channel, 0 to 255, at which a pixel still counts as the nearest class.
        skip_bad: leave out what cannot be used; otherwise the tree stays unfinished until it is corrected.
        background: colour behind transparent parts of images: red, green and blue, 0 to 255.
        crop: `centre` takes the largest centred square of images and masks that are not square (raw ADE20K); `none`
            refuses them. Images without masks are always cropped.

    Returns:
        What was written.

    Raises:
        ConfigError: a value out of range, or a folder that holds something else.
        DataError: the source is missing, or holds what cannot be used.
        RunError: another conversion is writing there, or the disk is full.
    """
    if to is None:
        raise ConfigError(f"nowhere to write {folder} to", "the source is only read", "name a new folder with --to")
    layout = detect(folder.expanduser()) if format == "auto" else format
    done = convert_tree(folder, to, layout, resolution, labels, tolerance, skip_bad, background, crop)
    lines = [f"{done.images:,} images ({done.written:,} written now) of {folder} ({layout}) in {to}"]
    if done.splits:
        lines.append("splits: " + ", ".join(f"{name} {count:,}" for name, count in done.splits.items()))
    lines += [f"left out: {line}" for line in done.problems.lines()]
    if done.strangers:
        listed = ", ".join(done.strangers[:5])
        lines.append(f"{len(done.strangers):,} images there are not (or no longer) in {folder}: {listed}")
    return "\n".join(lines)


def plot(
    data: str = "avatars",
    split: Split = "test",
    out: Path = Path("avatars.png"),
    resolution: int = 64,
    rows: int = 4,
    columns: int = 6,
    labels: str | None = None,
) -> str:
    """Write a picture of a data set's first images beside their coloured masks.

    Args:
        data: `avatars`, or a folder with `images/` and `masks/`.
        split: train, val or test, of avatars.
        out: picture to write; its suffix decides the format (.png, .jpg, .webp).
        resolution: height and width of the images in pixels.
        rows: rows of pairs.
        columns: pairs a row.
        labels: label set of a folder's masks, or its JSON file; left out, the folder's own.

    Returns:
        A line that says where the picture is.

    Raises:
        ConfigError: when the picture cannot be written there, or a value is out of range.
        DataError: when the folder cannot be read.
    """
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
    if out.suffix.lower() not in formats:
        raise ConfigError(
            f"picture {out}", f"the formats are {', '.join(formats)}", "give the file one of these suffixes"
        )
    if not out.parent.is_dir():
        raise ConfigError(f"picture {out}", f"there is no folder {out.parent}", "make the folder or choose another")
    dataset: Dataset[Any]
    if data == "avatars":
        dataset, described = AvatarsDataset(split, rows * columns, resolution), f"{data} ({split})"
    else:
        dataset, described = ImageMaskFolder(data, resolution, labels), data
    picture = plot_dataset(dataset, rows, columns)
    with atomic_write(out) as file:
        picture.save(file, formats[out.suffix.lower()])
    return f"{rows * columns} images of {described} in {out}"
