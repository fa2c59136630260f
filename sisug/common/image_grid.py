"""Labelled grids of images (every stage), as pictures and as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sisug.common.atomic_file import atomic_write
from sisug.common.image_bytes import to_bytes

GridRow = Float[Tensor, "_ 3 _ _"] | UInt8[Tensor, "_ 3 _ _"]
"""Images of one row: float in [-1, 1], or uint8 (coloured masks)."""

_GAP = 2
_PAPER = 255


def make_grid(rows: Sequence[GridRow], labels: Sequence[str]) -> Image.Image:
    """Lay out images in rows with a short label at the left of each.

    Args:
        rows: images of each row, all of one size; rows may differ in length. Float in [-1, 1] (clamped) or uint8.
        labels: one a row.

    Raises:
        ValueError: no rows, or not one label a row, or images of different sizes.
    """
    if not rows or len(rows) != len(labels):
        raise ValueError(f"a grid needs one label a row: got {len(rows)} rows, {len(labels)} labels")
    sizes = {tuple(row.shape[-2:]) for row in rows}
    if len(sizes) > 1:
        raise ValueError(f"images of one grid must have one size, got {sorted(sizes)}")
    height, width = sizes.pop()
    columns = max(len(row) for row in rows)
    # Laid out by hand: torchvision's function for it takes longer to import than torch.
    down, across = height + _GAP, width + _GAP
    sheet = torch.full((3, _GAP + len(rows) * down, _GAP + columns * across), _PAPER, dtype=torch.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(_to_uint8(row)):
            top, left = _GAP + i * down, _GAP + j * across
            sheet[:, top : top + height, left : left + width] = image
    pixels = sheet.permute(1, 2, 0).numpy()

    font = ImageFont.load_default(size=11)
    margin = 2 * _GAP + max((round(font.getlength(label)) for label in labels), default=0)
    grid = Image.new("RGB", (margin + pixels.shape[1], pixels.shape[0]), (_PAPER,) * 3)
    grid.paste(Image.fromarray(pixels), (margin, 0))
    draw = ImageDraw.Draw(grid)
    for index, label in enumerate(labels):
        middle = _GAP + index * (height + _GAP) + height // 2
        draw.text((_GAP, middle), label, fill=(0, 0, 0), font=font, anchor="lm")
    return grid


def save_grid(rows: Sequence[GridRow], path: str | Path, labels: Sequence[str]) -> Image.Image:
    """Write a labelled grid as PNG, whole or not at all.

    Args:
        rows: images of each row, see `make_grid`.
        path: where the file is to lie; its folder is made.
        labels: one a row.

    Returns:
        The grid.

    Raises:
        ValueError: see `make_grid`.
        RunError: the disk is full.
    """
    grid = make_grid(rows, labels)
    write_grid(grid, Path(path))
    return grid


def _to_uint8(row: GridRow) -> UInt8[Tensor, "_ 3 _ _"]:
    row = row.detach().cpu()
    if row.dtype == torch.uint8:
        return row
    return to_bytes(row.float())


def write_grid(grid: Image.Image, path: Path) -> None:
    """Write a grid as PNG, whole or not at all.

    Args:
        grid: of `make_grid`.
        path: where the file is to lie.

    Raises:
        RunError: the disk is full.
    """
    with atomic_write(path) as file:
        grid.save(file, format="PNG")
