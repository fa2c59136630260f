"""Thinning of label maps to lines, and thickening of lines (conditions scribble and sketch), on whole batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from sisug.types import Masks

_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""(row, column) steps to the eight neighbours, clockwise from north: bits 0 to 7 of a neighbourhood's code."""

_NONE = 255
"""Label of pixels in no region, while a map is a byte a pixel."""


def _deletable(code: int, second: bool) -> bool:
    """Guo and Hall's conditions for a pixel whose neighbours of the same region have these bits."""
    n, ne, e, se, s, sw, w, nw = (bool(code >> bit & 1) for bit in range(8))
    crossings = (
        (not n and (ne or e)) + (not e and (se or s)) + (not s and (sw or w)) + (not w and (nw or n))
    )  # fmt: skip
    neighbours = min((nw or n) + (ne or e) + (se or s) + (sw or w), (n or ne) + (e or se) + (s or sw) + (w or nw))
    kept_by_side = ((s or sw or not nw) and w) if second else ((n or ne or not se) and e)
    return crossings == 1 and 2 <= neighbours <= 3 and not kept_by_side


def _table(deleted: Sequence[bool]) -> UInt8[Tensor, "256"]:
    """255, which marks pixels of no region, for the codes to delete, and 0 for the others: or-ed to labels."""
    return torch.tensor([_NONE if code_deleted else 0 for code_deleted in deleted], dtype=torch.uint8)


_THINNING = tuple(_table([_deletable(code, second) for code in range(256)]) for second in (False, True))
_ENDS = _table([code.bit_count() == 1 for code in range(256)])


def thin(labels: Masks, ignore: int) -> Masks:
    """Thin every region to lines of one pixel, all classes and samples at once.

    A pixel counts as its neighbour's only where both have the same label, so regions are thinned as if each were alone.
    A region never vanishes and never breaks.

    Args:
        labels: class numbers or ``ignore``.
        ignore: value of pixels that belong to no region; what is thinned away becomes it.

    Source: Guo & Hall, "Parallel thinning with two-subiteration algorithms", 1989.
    """
    tables = [table.to(labels.device) for table in _THINNING]
    regions = _bordered(labels, ignore)
    centre = regions[:, 1:-1, 1:-1]
    while True:
        before = centre.clone()
        for table in tables:
            centre |= table[_codes(regions).int()]
        if torch.equal(before, centre):
            break
    return centre.long().masked_fill(centre == _NONE, ignore)


def shorten(lines: Masks, steps: Int64[Tensor, " batch"], ignore: int) -> Masks:
    """Take pixels off the ends of thin lines, which also removes the short spurs that thinning leaves.

    Args:
        lines: results of ``thin``.
        steps: pixels to take off each end, for each sample.
        ignore: value of pixels without a line.

    Returns:
        Shorter lines; a class that would lose all of its lines in a sample keeps them.
    """
    ends, steps = _ENDS.to(lines.device), steps.to(lines.device)[:, None, None]
    regions = _bordered(lines, ignore)
    centre = regions[:, 1:-1, 1:-1]
    for step in range(int(steps.max())):
        centre |= torch.where(steps > step, ends[_codes(regions).int()], 0)
    short = centre.long()
    lost = ~torch.gather(present(short), 1, lines.flatten(1)).view_as(lines)
    return torch.where((short != _NONE) | lost, lines, ignore)


def present(labels: Masks) -> Bool[Tensor, "batch 256"]:
    """Which labels each sample has.

    Args:
        labels: values 0 to 255.
    """
    found = torch.zeros(len(labels), 256, dtype=torch.bool, device=labels.device)
    return found.scatter_(1, labels.flatten(1), torch.ones_like(labels.flatten(1), dtype=torch.bool))


def thicken(lines: Masks, within: Masks, widths: Int64[Tensor, " batch"], ignore: int) -> Masks:
    """Make thin lines wider, each inside the region of its own class.

    Args:
        lines: class numbers, or ``ignore`` where there is no line.
        within: class numbers of all pixels; a line of class c grows only where this is c.
        widths: width of each sample's lines, pixels; 1 leaves them as they are.
        ignore: value of pixels without a line.
    """
    drawn = torch.where(lines == within, lines, ignore) != ignore
    for step in range(int(widths.max()) - 1):
        # Growing by one pixel to one side at a time keeps lines where they are; corners every second time make a
        # brush that is round rather than square.
        side = 1 if step % 2 == 0 else -1
        around = [(side, 0), (0, side)] + [(side, side)] * (step % 4 < 2)
        drawn = drawn | (_touched(drawn, within, around) & (widths > step + 1).to(lines.device)[:, None, None])
    return torch.where(drawn, within, ignore)


def _touched(
    drawn: Bool[Tensor, "batch height width"], within: Masks, around: Sequence[tuple[int, int]]
) -> Bool[Tensor, "batch height width"]:
    """Pixels with a drawn neighbour of their own class."""
    height, width = within.shape[1:]
    padded = F.pad(within.masked_fill(~drawn, -1), (1, 1, 1, 1), value=-1)
    touched = torch.zeros_like(drawn)
    for down, right in around:
        touched |= padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] == within
    return touched


def _bordered(labels: Masks, ignore: int) -> UInt8[Tensor, "batch bordered_height bordered_width"]:
    """One byte a pixel, those of no region 255, inside a border of one pixel that belongs to none."""
    return F.pad(labels.masked_fill(labels == ignore, _NONE).to(torch.uint8), (1, 1, 1, 1), value=_NONE)


def _codes(
    regions: UInt8[Tensor, "batch bordered_height bordered_width"],
) -> UInt8[Tensor, "batch height width"]:
    """Bits of the neighbours with the same label, uint8, for all pixels inside the border."""
    height, width = regions.shape[1] - 2, regions.shape[2] - 2
    centre = regions[:, 1:-1, 1:-1]
    codes = torch.zeros_like(centre)
    for bit, (down, right) in enumerate(_AROUND):
        same = regions[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] == centre
        codes |= same.to(torch.uint8) << bit
    return codes
