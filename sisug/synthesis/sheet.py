"""Contact sheets of generated images (synthesis): a row a layout, a column a look, at a size fit to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sisug.common.image_bytes import to_bytes
from sisug.common.image_grid import make_grid

LEAST, MOST = 192, 256
"""Images below the first are enlarged by a whole factor up to it; those above the second are reduced by one."""

MOST_ROWS = 64
"""A sheet shows the first layouts only; programs fail to open larger pictures."""

LONGEST = 24
"""Letters of a label."""

_HEADER = 16
_GAP = 2


class Row(NamedTuple):
    """What a sheet shows of a layout.

    Args:
        name: of the layout.
        cells: what was given, and the images, at the sheet's size.
    """

    name: str
    cells: UInt8[Tensor, "cell 3 height width"]


def sheet_row(name: str, shown: UInt8[Tensor, "3 height width"], images: Float[Tensor, "look 3 height width"]) -> Row:
    """A row at the size of the sheet.

    Args:
        name: of the layout.
        shown: what was given.
        images: in [-1, 1].
    """
    cells = torch.cat([shown[None], to_bytes(images)])
    size = cells.shape[-1]
    if size > MOST:
        factor = -(-size // MOST)
        small = F.interpolate(cells.float(), scale_factor=1 / factor, mode="area").round()
        return Row(name, small.to(torch.uint8))
    factor = max(1, LEAST // size)
    return Row(name, cells.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3))


def contact_sheet(rows: Sequence[Row], looks: Sequence[str]) -> Image.Image:
    """Rows under a line of labels.

    Args:
        rows: the first ``MOST_ROWS`` are shown.
        looks: labels of the columns after the first.
    """
    shown = rows[:MOST_ROWS]
    grid = make_grid([row.cells for row in shown], [_short(row.name) for row in shown])
    sheet = Image.new("RGB", (grid.width, grid.height + _HEADER), (255, 255, 255))
    sheet.paste(grid, (0, _HEADER))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    step = rows[0].cells.shape[-1] + _GAP
    left = grid.width - _GAP - step * (1 + len(looks))
    for column, label in enumerate(("given", *looks)):
        middle = left + column * step + step // 2
        draw.text((middle, _HEADER // 2 + 1), _short(label), fill=(0, 0, 0), font=font, anchor="mm")
    return sheet


def _short(label: str) -> str:
    # File names may hold line breaks, and bytes that are no text.
    label = "".join(letter if letter.isprintable() else "?" for letter in label)
    return label if len(label) <= LONGEST else label[: LONGEST - 3] + "..."
