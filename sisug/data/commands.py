"""`sisug data` subcommands: look at the data before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sisug.data.avatars.dataset import AvatarsDataset, Split
from sisug.data.avatars.plotting import plot as plot_dataset
from sisug.errors import ConfigError


def plot(
    data: Literal["avatars"] = "avatars",
    split: Split = "test",
    out: Path = Path("avatars.png"),
    resolution: int = 64,
    rows: int = 4,
    columns: int = 6,
) -> str:
    """Write a picture of a data set's first images beside their coloured masks.

    Args:
        data: which data set.
        split: train, val or test.
        out: picture to write; its suffix decides the format (.png, .jpg, .webp).
        resolution: height and width of the images in pixels.
        rows: rows of pairs.
        columns: pairs a row.

    Returns:
        A line that says where the picture is.

    Raises:
        ConfigError: when the picture cannot be written there, or a value is out of range.
    """
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
    if out.suffix.lower() not in formats:
        raise ConfigError(
            f"picture {out}", f"the formats are {', '.join(formats)}", "give the file one of these suffixes"
        )
    if not out.parent.is_dir():
        raise ConfigError(f"picture {out}", f"there is no folder {out.parent}", "make the folder or choose another")
    picture = plot_dataset(AvatarsDataset(split, rows * columns, resolution), rows, columns)
    temporary = out.with_name(out.name + ".tmp")
    picture.save(temporary, formats[out.suffix.lower()])
    temporary.replace(out)
    return f"{rows * columns} images of {data} ({split}) in {out}"
