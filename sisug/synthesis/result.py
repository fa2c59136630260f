"""Generated images (synthesis): written as PNGs, as a contact sheet, and with a record to make them again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from sisug.common.atomic_file import atomic_write
from sisug.common.image_bytes import to_bytes
from sisug.synthesis.sheet import MOST_ROWS, contact_sheet, sheet_row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneratedImages:
    """Images of every layout in every look.

    Args:
        images: in [-1, 1], on the CPU.
        names: one a layout, all different.
        looks: one label a look: "seed3", or the name of a picture.
        shown: what was given for each layout, as a picture.
        record: everything to make them again; JSON values.
    """

    images: Float[Tensor, "layout look 3 height width"]
    names: tuple[str, ...]
    looks: tuple[str, ...]
    shown: UInt8[Tensor, "layout 3 height width"]
    record: dict[str, Any]

    def __len__(self) -> int:
        return len(self.images) * len(self.looks)

    def file_names(self) -> list[str]:
        """Names of the images' files, those of one layout after the other."""
        return [file_name(name, look) for name in self.names for look in self.looks]

    def save(self, folder: str | Path) -> list[Path]:
        """Write one PNG an image, each whole or not at all; files of the same names are replaced.

        Args:
            folder: made if need be.
        """
        paths = [Path(folder) / name for name in self.file_names()]
        for path, image in zip(paths, self.images.flatten(0, 1), strict=True):
            picture = Image.fromarray(to_bytes(image).permute(1, 2, 0).numpy())
            with atomic_write(path) as file:
                picture.save(file, format="PNG")
        return paths

    def save_grid(self, path: str | Path) -> Path:
        """Write a contact sheet as PNG: a row a layout, what was given at its left.

        Args:
            path: of the file.
        """
        if len(self.names) > MOST_ROWS:
            log.info("%s shows the first %d of %d layouts", path, MOST_ROWS, len(self.names))
        rows = [
            sheet_row(name, shown, images)
            for name, shown, images in list(zip(self.names, self.shown, self.images, strict=True))[:MOST_ROWS]
        ]
        sheet = contact_sheet(rows, self.looks)
        with atomic_write(Path(path)) as file:
            sheet.save(file, format="PNG")
        return Path(path)


def file_name(layout: str, look: str) -> str:
    """Name of an image's file.

    Args:
        layout: its name.
        look: its label.
    """
    return f"{layout}-{look}.png"
