"""Generated images (synthesis): as pictures, PNGs and contact sheets, with a record to make them again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from sisug.common.atomic_file import atomic_write
from sisug.common.image_bytes import to_bytes
from sisug.common.image_grid import make_grid
from sisug.synthesis.layouts import Layout

logger = logging.getLogger(__name__)

SMALLEST, LARGEST = 192, 256
"""Images below the first are enlarged by a whole factor up to it; those above the second are reduced by one."""

MOST_ROWS = 64
"""A sheet shows the first layouts only; programs fail to open larger pictures."""

LONGEST = 24
"""Letters of a label on a sheet."""

_HEADER = 16
_GAP = 2


@dataclass(frozen=True, repr=False)
class GeneratedImages:
    """Images of every layout in every style.

    Args:
        images: in [-1, 1], on the CPU.
        names: one per layout, all different.
        styles: one caption per style: "seed3", or the name of a picture.
        shown: what was given for each layout, as a picture.
        record: everything to make them again; JSON values.
        warnings: what a user should know about drawings and styles; the log has said it too.
    """

    images: Float[Tensor, "layout style 3 height width"]
    names: tuple[str, ...]
    styles: tuple[str, ...]
    shown: UInt8[Tensor, "layout 3 height width"]
    record: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images) * len(self.styles)

    def __repr__(self) -> str:
        height, width = self.images.shape[-2:]
        warnings = f", {len(self.warnings)} warnings" if self.warnings else ""
        return (
            f"GeneratedImages({len(self)} of {width}x{height}: {_first(self.names)} in {_first(self.styles)}{warnings})"
        )

    def pictures(self) -> list[Image.Image]:
        """The images as pictures of Pillow, those of one layout after the other."""
        return [picture_of_image(image) for image in self.images.flatten(0, 1)]

    def file_names(self) -> list[str]:
        """Names of the images' files, those of one layout after the other."""
        return [file_name(name, style) for name in self.names for style in self.styles]

    def save(self, folder: str | Path) -> list[Path]:
        """Write one PNG per image, each complete or not at all; files of the same names are replaced.

        Args:
            folder: made if need be.
        """
        paths = [Path(folder) / name for name in self.file_names()]
        for path, picture in zip(paths, self.pictures(), strict=True):
            write_png(picture, path)
        return paths

    def save_grid(self, path: str | Path) -> Path:
        """Write a contact sheet as PNG: one row per layout, what was given at its left.

        Args:
            path: of the file.
        """
        if len(self.names) > MOST_ROWS:
            logger.info("%s shows the first %d of %d layouts", path, MOST_ROWS, len(self.names))
        rows = [
            sheet_row(name, shown, images)
            for name, shown, images in list(zip(self.names, self.shown, self.images, strict=True))[:MOST_ROWS]
        ]
        write_png(contact_sheet(rows, self.styles), Path(path))
        return Path(path)


def file_name(layout: str, style: str) -> str:
    """Name of an image's file.

    Args:
        layout: its name.
        style: its caption.
    """
    return f"{layout}-{style}.png"


def picture_of_image(image: Float[Tensor, "3 height width"]) -> Image.Image:
    """A picture of Pillow.

    Args:
        image: in [-1, 1], on the CPU.
    """
    return Image.fromarray(to_bytes(image).permute(1, 2, 0).numpy())


def write_png(picture: Image.Image, path: Path) -> None:
    """Write a picture, complete or not at all.

    Args:
        picture: of Pillow.
        path: of the file; its folder is made if need be.
    """
    with atomic_write(path) as file:
        picture.save(file, format="PNG")


def write_stream(
    images: Iterable[tuple[Layout, str, Float[Tensor, "3 height width"]]],
    layouts: Sequence[Layout],
    styles: Sequence[str],
    folder: Path,
    sheet: str,
) -> None:
    """Write each image as soon as it is there, and a contact sheet at last.

    Args:
        images: of ``Synthesizer.stream``.
        layouts: that they have, in order.
        styles: captions of the styles that they have, in order.
        folder: made if need be.
        sheet: name of the contact sheet's file.
    """
    rows: list[SheetRow] = []
    row: list[Tensor] = []
    console = Console(stderr=True)
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(layouts) * len(styles))
        for layout, caption, image in images:
            write_png(picture_of_image(image), folder / file_name(layout.name, caption))
            progress.advance(task)
            row.append(image)
            if len(row) == len(styles):
                if len(rows) < MOST_ROWS:
                    rows.append(sheet_row(layout.name, layout.shown, torch.stack(row)))
                row.clear()
    if len(layouts) > MOST_ROWS:
        logger.info("%s shows the first %d of %d layouts", sheet, MOST_ROWS, len(layouts))
    write_png(contact_sheet(rows, styles), folder / sheet)


class SheetRow(NamedTuple):
    """What a sheet shows of a layout.

    Args:
        name: of the layout.
        cells: what was given, and the images, at the sheet's size.
    """

    name: str
    cells: UInt8[Tensor, "cell 3 height width"]


def sheet_row(
    name: str, shown: UInt8[Tensor, "3 shown_height shown_width"], images: Float[Tensor, "style 3 height width"]
) -> SheetRow:
    """A row at the size of the sheet.

    Args:
        name: of the layout.
        shown: what was given.
        images: in [-1, 1].
    """
    size = images.shape[-1]
    if shown.shape[-1] != size:  # mappers of large generators read smaller drawings
        shown = F.interpolate(shown[None].float(), (size, size), mode="nearest-exact")[0].to(torch.uint8)
    cells = torch.cat([shown[None], to_bytes(images)])
    if size > LARGEST:
        factor = -(-size // LARGEST)
        small = F.interpolate(cells.float(), scale_factor=1 / factor, mode="area").round()
        return SheetRow(name, small.to(torch.uint8))
    factor = max(1, SMALLEST // size)
    return SheetRow(name, cells.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3))


def contact_sheet(rows: Sequence[SheetRow], styles: Sequence[str]) -> Image.Image:
    """Rows under a line of captions.

    Args:
        rows: the first ``MOST_ROWS`` are shown.
        styles: captions of the columns after the first.
    """
    shown = rows[:MOST_ROWS]
    grid = make_grid([row.cells for row in shown], [_short(row.name) for row in shown])
    sheet = Image.new("RGB", (grid.width, grid.height + _HEADER), (255, 255, 255))
    sheet.paste(grid, (0, _HEADER))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    step = rows[0].cells.shape[-1] + _GAP
    left = grid.width - _GAP - step * (1 + len(styles))
    for column, caption in enumerate(("given", *styles)):
        middle = left + column * step + step // 2
        draw.text((middle, _HEADER // 2 + 1), _short(caption), fill=(0, 0, 0), font=font, anchor="mm")
    return sheet


def _short(caption: str) -> str:
    # File names may hold line breaks, and bytes that are no text.
    caption = "".join(letter if letter.isprintable() else "?" for letter in caption)
    return caption if len(caption) <= LONGEST else caption[: LONGEST - 3] + "..."


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(_short(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
