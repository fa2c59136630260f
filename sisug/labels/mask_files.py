"""Label masks in files (conditions seg and scribble): pixels read as class numbers or by their colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sisug.errors import DataError
from sisug.labels.label_sets import IGNORE_COLOUR, LabelSet
from sisug.labels.pictures import Picture, check_mode, palette_colours, read_picture, rgba

READING = 2
"""Of the code that turns a file into classes; raise it when classes change."""

WHITE = (255, 255, 255)

MANY_COLOURS = 64
"""More unknown colours or values than this are no slip of the brush. Our choice."""

SLIGHT = 16
"""Unknown colours up to this far from a class's are worth a tolerance, per channel. Our choice."""

MOST_RUNS = 1 << 22
"""Stretches of one color in a mask; sorting more takes seconds and gigabytes. Our choice."""

LISTED = 6
"""Values named in a message; the rest is counted."""


def read_mask(
    path: Path,
    labels: LabelSet,
    *,
    tolerance: int = 0,
    white_is_blank: bool = False,
    square: bool = True,
    numbers: bool = False,
) -> np.ndarray:
    """The mask in a picture file, at the picture's own size; `mask_of` says how it is read.

    Args:
        path: a PNG, or any other format that Pillow reads.
        labels: see `mask_of`, as the next two.
        tolerance: as there.
        white_is_blank: as there.
        square: whether the picture has to be square; callers that crop the mask themselves take any.
        numbers: as there.

    Returns:
        int64 (height, width): class numbers or ``labels.ignore``.

    Raises:
        DataError: for anything that is not such a mask, with the values found.
    """
    picture = read_picture(path, square=square)
    return mask_of(picture, labels, tolerance=tolerance, white_is_blank=white_is_blank, numbers=numbers)


def mask_of(
    picture: Picture,
    labels: LabelSet,
    *,
    tolerance: int = 0,
    white_is_blank: bool = False,
    numbers: bool = False,
) -> np.ndarray:
    """The mask in a picture, at the picture's own size.

    One picture has the same classes however it is stored. What its colors say comes first; class numbers are a second
    language, for pictures whose colors say nothing:

    - RGB or RGBA: each colour is a class's, exactly or within ``tolerance``; magenta (``IGNORE_COLOUR``) and wholly
      transparent pixels are don't-care; half-transparent ones are refused.
    - Gray (1 bit or 8): where every gray that occurs is exactly a class's color, the picture is read by colors, as RGB;
      a warning says so where the values could be class numbers too. Otherwise each value is a class number, or
      ``labels.ignore``.
    - Palette: paint programs reorder palettes as they save, so colours win. If any colour in use is the label set's
      (at another number than its class), the file is read by colours, as RGB. Otherwise it is an index picture: the
      palette is only for show and the stored numbers are class numbers; a warning says so where colours differ.

    Args:
        picture: from a file, or from memory.
        labels: classes and colors.
        tolerance: largest difference per color channel, 0 to 255, at which a pixel still counts as the nearest class.
        white_is_blank: whether white paper is don't-care, unless a class is white.
        numbers: whether values are class numbers whatever their colors say: of masks that sisug wrote.

    Returns:
        int64 (height, width): class numbers or ``labels.ignore``.

    Raises:
        DataError: for anything that is not such a mask, with the values found.
    """
    _check_depth(picture)
    check_mode(picture)
    table = _colour_table(labels, white_is_blank)
    mode = picture.image.mode
    if mode in ("1", "L", "LA", "P") and numbers:
        return _by_number(picture, labels)
    if mode in ("1", "L", "LA"):
        meant = _greys_are_meant(picture, labels, table, tolerance)
    else:
        meant = mode != "P" or _palette_is_meant(picture, labels, table, tolerance)
    return _by_colour(picture, labels, table, tolerance) if meant else _by_number(picture, labels)


def mask_picture(mask: np.ndarray, labels: LabelSet) -> Image.Image:
    """A mask as a palette picture: its numbers are the classes', and so are its colours, so that both readings agree.

    Args:
        mask: (height, width), class numbers or ``labels.ignore``.
        labels: classes and colours.
    """
    colours = np.zeros((256, 3), np.uint8)
    colours[: labels.num_classes], colours[labels.ignore] = labels.palette, IGNORE_COLOUR
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette(colours.tobytes())
    return picture


def _check_depth(picture: Picture) -> None:
    if picture.deep:
        values = np.unique(np.asarray(picture.image))
        raise picture.refuse(
            f"has 16 bits or more a channel, with {len(values)} values from {values[0]} to {values[-1]}",
            "class numbers and palette colours have 8 bits; 16 are those of depth maps and raw photos",
            "save the mask as PNG with 8 bits a channel",
        )


def _colour_table(labels: LabelSet, white_is_blank: bool) -> dict[tuple[int, int, int], int]:
    """Which value each known colour stands for."""
    table = {colour: number for number, colour in enumerate(labels.palette)}
    table[IGNORE_COLOUR] = labels.ignore
    if white_is_blank:
        table.setdefault(WHITE, labels.ignore)
    return table


def _greys_are_meant(
    picture: Picture, labels: LabelSet, table: dict[tuple[int, int, int], int], tolerance: int
) -> bool:
    """Whether the greys of a picture without colour say the classes, rather than its numbers."""
    mode = picture.image.mode
    stored = np.asarray(picture.image.getchannel("L") if mode == "LA" else picture.image)
    if picture.image.has_transparency_data:
        stored = stored[rgba(picture)[..., 3] > 0]  # what is wholly transparent has no colour
    used = _present(stored.astype(np.uint8))
    shown = used * 255 if mode == "1" else used
    greys = {colour[0]: value for colour, value in table.items() if len(set(colour)) == 1}
    are_numbers = bool(((used < labels.num_classes) | (used == labels.ignore)).all())
    if len(used) and all(int(grey) in greys for grey in shown):
        if are_numbers and any(greys[int(grey)] != number for grey, number in zip(shown, used, strict=True)):
            names = [*labels.classes, *[""] * 256]
            said = ", ".join(f"{grey} = {names[greys[int(grey)]] or 'left out'}" for grey in shown)
            picture.warn(
                f"its grays are colors of label set {labels.name!r} and read as such ({said}), as the same picture in "
                "RGB would be. If they are class numbers, save it as a palette picture"
            )
        return True
    if are_numbers:
        return False
    # No reading fits exactly: near colours, or whichever the values are more like, for the message.
    near = [min((abs(int(grey) - known) for known in greys), default=256) for grey in shown]
    return bool(near) and (
        max(near) <= tolerance or any(away == 0 and grey for away, grey in zip(near, shown, strict=True))
    )


def _palette_is_meant(
    picture: Picture, labels: LabelSet, table: dict[tuple[int, int, int], int], tolerance: int
) -> bool:
    """Whether the colours of a palette picture say the classes, rather than its stored numbers."""
    used = _present(np.asarray(picture.image))
    colours = palette_colours(picture)[used].astype(np.int64)
    known, values = np.array(list(table)), np.array(list(table.values()))
    away = np.abs(colours[:, None, :3] - known)
    distance = np.maximum(np.maximum(away[..., 0], away[..., 1]), away[..., 2])
    recognised = (distance.min(axis=1) <= tolerance) & (colours[:, 3] > 0)
    agrees = values[distance.argmin(axis=1)] == used
    return bool((recognised & ~agrees).any())


def _present(numbers: np.ndarray) -> np.ndarray:
    """The numbers 0 to 255 that occur, sorted; sorting the pixels would take fifty times as long."""
    return np.flatnonzero(np.bincount(numbers.reshape(-1), minlength=256))


def _by_number(picture: Picture, labels: LabelSet) -> np.ndarray:
    # Palette and 1-bit pictures give their stored numbers; conversion would give brightness.
    stored = picture.image.getchannel("L") if picture.image.mode == "LA" else picture.image
    numbers = np.asarray(stored).astype(np.int64)
    if picture.image.has_transparency_data:
        alpha = rgba(picture)[..., 3]
        opaque = _opaque(picture, np.arange(256), np.bincount(alpha.reshape(-1), minlength=256))
        numbers = np.where(opaque[alpha], numbers, labels.ignore)
    known = (numbers < labels.num_classes) | (numbers == labels.ignore)
    if not known.all():
        values, counts = np.unique(numbers[~known], return_counts=True)
        listed = ", ".join(f"{v} ({n} px)" for v, n in _most_frequent(values, counts))
        more = f" and {len(values) - LISTED} more" if len(values) > LISTED else ""
        kind = "stored numbers" if picture.image.mode == "P" else "grey values"
        raise picture.refuse(
            f"has {int(counts.sum())} pixels with {kind} that are no class of label set {labels.name!r}: "
            f"{listed}{more}",
            f"the numbers 0 to {labels.num_classes - 1} are classes ({', '.join(labels.classes)}), "
            f"{labels.ignore} is don't-care"
            + ("; so many values are those of a photo or a drawing in grey" if len(values) > MANY_COLOURS else ""),
            "save class numbers, or paint in the label set's colours and save as RGB",
        )
    if picture.image.mode == "P":
        _say_if_colours_differ(picture, labels, numbers)
    return numbers


def _say_if_colours_differ(picture: Picture, labels: LabelSet, numbers: np.ndarray) -> None:
    used = _present(numbers)
    used = used[used != labels.ignore]
    if (palette_colours(picture)[used, :3] != np.array(labels.palette)[used]).any():
        meaning = ", ".join(f"{n} = {labels.classes[n]}" for n in used)
        picture.warn(
            f"its palette is not that of label set {labels.name!r}, so its stored numbers are taken as class numbers "
            f"({meaning}). If its colours are meant, save it as RGB"
        )


def _by_colour(
    picture: Picture, labels: LabelSet, table: dict[tuple[int, int, int], int], tolerance: int
) -> np.ndarray:
    pixels = rgba(picture)
    # Neighbours are mostly equal in masks: what is looked up and sorted are runs, a hundredth of the pixels.
    codes = pixels.view("<u4").reshape(-1)
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    if len(starts) > MOST_RUNS:
        raise picture.refuse(
            f"changes its color at {len(starts):,} of {len(codes):,} pixels",
            "a mask has areas of one color each; this looks like a photo or noise",
            "paint areas with a hard brush, or make the picture smaller",
        )
    lengths = np.diff(starts, append=len(codes))
    found, where = np.unique(codes[starts].byteswap(), return_inverse=True)  # red highest, opacity lowest
    counts = np.bincount(where, weights=lengths).astype(np.int64)
    opaque = _opaque(picture, found & 255, counts)
    colours = np.stack([found >> 24, found >> 16 & 255, found >> 8 & 255], axis=1).astype(np.int64)
    nearest_colour = np.zeros(len(found), dtype=np.int64)
    distance = np.full(len(found), 256)
    known = list(table)
    for position, colour in enumerate(known):  # one known colour at a time: a photo has a million others
        away = np.abs(colours - np.array(colour)).max(axis=1)
        closer = away < distance
        nearest_colour[closer], distance[closer] = position, away[closer]
    foreign = opaque & (distance > tolerance)
    if foreign.any():
        raise _unknown_colours(
            picture, labels, table, colours[foreign], counts[foreign], nearest_colour[foreign], distance[foreign]
        )
    values = np.where(opaque, np.array([table[colour] for colour in known])[nearest_colour], labels.ignore)
    return np.repeat(values[where], lengths).reshape(pixels.shape[:2])


def _opaque(picture: Picture, alpha: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Which values of opacity say that something is drawn; `counts` says how many pixels have each."""
    half = (alpha > 0) & (alpha < 255) & (counts > 0)
    if half.any():
        raise picture.refuse(
            f"has {int(counts[half].sum())} half-transparent pixels (opacity {int(alpha[half].min())} to "
            f"{int(alpha[half].max())} of 255)",
            "such a pixel is neither drawn nor left out; soft brushes make them",
            "draw with a hard brush, or flatten the picture; wholly transparent pixels are don't-care",
        )
    return alpha == 255


def _unknown_colours(
    picture: Picture,
    labels: LabelSet,
    table: dict[tuple[int, int, int], int],
    colours: np.ndarray,
    counts: np.ndarray,
    nearest_colour: np.ndarray,
    distance: np.ndarray,
) -> DataError:
    known = list(table)
    names = ["don't-care" if number == labels.ignore else labels.classes[number] for number in table.values()]
    listed = ", ".join(
        f"{_hex(colours[i])} ({counts[i]} px, nearest: {names[nearest_colour[i]]} {_hex(known[nearest_colour[i]])}, "
        f"{distance[i]} away)"
        for i, _ in _most_frequent(np.arange(len(colours)), counts)
    )
    more = f" and {len(colours) - LISTED} more" if len(colours) > LISTED else ""
    remedy = "paint with a hard brush in the label set's colours and save as PNG"
    needed = int(distance.max())
    if len(colours) > MANY_COLOURS:
        cause = f"{len(colours):,} colours are those of a photo, a JPEG or a soft-edged drawing, not of a mask"
    elif needed <= SLIGHT:
        cause = "the colours are near those of classes: a soft brush, smooth scaling or a lossy format changes them"
        remedy += f"; or allow a tolerance of {needed}, which takes each as its nearest class"
    else:
        cause = "every pixel must have a class's colour: " + ", ".join(
            f"{_hex(colour)} {name}" for colour, name in zip(known, names, strict=True)
        )
    plural = "s" if len(colours) > 1 else ""
    return picture.refuse(
        f"has {int(counts.sum())} pixels in {len(colours)} colour{plural} that label set {labels.name!r} does not "
        f"have: {listed}{more}",
        cause,
        remedy,
    )


def _most_frequent(values: np.ndarray, counts: np.ndarray) -> list[tuple[int, int]]:
    order = np.argsort(-counts, kind="stable")[:LISTED]
    return [(int(values[i]), int(counts[i])) for i in order]


def _hex(colour: np.ndarray | tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(v) for v in colour))
