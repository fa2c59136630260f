"""Pictures of images beside their masks, with a legend: to check data by eye before anything trains on it."""

from __future__ import annotations

import math
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.utils.data import Dataset

from sisug.common.image_bytes import to_bytes
from sisug.errors import ConfigError
from sisug.labels.label_sets import LabelSet

MIN_TILE = 128
"""Smaller images are enlarged to about this many pixels, without smoothing, so that single pixels can be seen."""

LINE, MARGIN = 18, 6


def plot(dataset: Dataset[Any], rows: int = 4, columns: int = 6) -> Image.Image:
    """The first images of a data set, each with its coloured mask to the right, above a legend of the classes.

    Args:
        dataset: of dicts with ``image`` in [-1, 1] and ``mask``, and with an attribute ``label_set``.
        rows: rows of pairs, 1 or more.
        columns: pairs a row, 1 or more.

    Raises:
        ConfigError: when the data set is smaller than the grid, or the grid is empty.
    """
    labels: LabelSet = dataset.label_set  # type: ignore[attr-defined]
    count = rows * columns
    if rows < 1 or columns < 1 or count > len(dataset):  # type: ignore[arg-type]
        raise ConfigError(
            f"a plot of {rows} rows and {columns} columns of a data set of {len(dataset)}",  # type: ignore[arg-type]
            "it needs one row and column or more, and no more images than there are",
            "choose fewer rows or columns, or a longer data set",
        )
    samples = [dataset[index] for index in range(count)]
    images = torch.stack([sample["image"] for sample in samples])
    colours = labels.colorize(torch.stack([sample["mask"] for sample in samples]))
    drawn = to_bytes(images)
    pairs = torch.cat([drawn, colours], dim=3)  # beside one another
    height, width = pairs.shape[2:]
    grid = (
        pairs.reshape(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    )
    factor = max(1, round(MIN_TILE / height))
    picture = Image.fromarray(grid.numpy()).resize(
        (columns * width * factor, rows * height * factor), Image.Resampling.NEAREST
    )
    return _with_legend(picture, labels)


def _with_legend(picture: Image.Image, labels: LabelSet) -> Image.Image:
    font = ImageFont.load_default(size=12)
    entry = max(int(font.getlength(name)) for name in labels.classes) + LINE + 2 * MARGIN
    a_row = max(1, picture.width // entry)
    height = math.ceil(labels.num_classes / a_row) * LINE + 2 * MARGIN
    canvas = Image.new("RGB", (max(picture.width, entry), picture.height + height), "white")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    for number, (name, colour) in enumerate(zip(labels.classes, labels.palette, strict=True)):
        left = MARGIN + number % a_row * entry
        top = picture.height + MARGIN + number // a_row * LINE
        draw.rectangle((left, top + 3, left + 12, top + 15), fill=colour, outline="black")
        draw.text((left + LINE, top + 2), name, fill="black", font=font)
    return canvas
