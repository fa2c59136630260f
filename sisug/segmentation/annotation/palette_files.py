"""A label set's colours for paint programs (stage 2): a GIMP palette, and a picture of swatches with names."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from sisug.labels.label_sets import IGNORE_COLOUR, LabelSet

DONT_CARE = "don't care"

_ROW, _SWATCH, _MARGIN = 28, 56, 8


def gimp_palette(labels: LabelSet) -> str:
    """The text of a `.gpl` file, which GIMP, Krita, Inkscape and Aseprite read.

    Args:
        labels: classes and colours; don't-care's colour comes last.
    """
    lines = ["GIMP Palette", f"Name: sisug {_line(labels.name)}", "Columns: 1", "#"]
    lines += [f"{r:3d} {g:3d} {b:3d}\t{_line(name)}" for name, (r, g, b) in _entries(labels)]
    return "\n".join([*lines, ""])


def swatches(labels: LabelSet) -> Image.Image:
    """A picture of the colours beside their names, exact enough for a colour picker.

    Args:
        labels: classes and colours; don't-care's colour comes last.
    """
    font = ImageFont.load_default(size=15)
    entries = _entries(labels)
    texts = [
        f"{number}  {name}  #{r:02x}{g:02x}{b:02x}"
        for number, (name, (r, g, b)) in zip([*range(labels.num_classes), labels.ignore], entries, strict=True)
    ]
    width = _SWATCH + 2 * _MARGIN + max(round(font.getlength(_line(text))) for text in texts)
    picture = Image.new("RGB", (width, _ROW * len(entries)), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for row, (text, (_, colour)) in enumerate(zip(texts, entries, strict=True)):
        draw.rectangle((0, row * _ROW, _SWATCH - 1, (row + 1) * _ROW - 1), fill=colour)
        draw.text((_SWATCH + _MARGIN, row * _ROW + _ROW // 2), _line(text), fill=(0, 0, 0), font=font, anchor="lm")
    return picture


def _entries(labels: LabelSet) -> list[tuple[str, tuple[int, int, int]]]:
    return [*zip(labels.classes, labels.palette, strict=True), (DONT_CARE, IGNORE_COLOUR)]


def _line(text: str) -> str:
    """One line of text; class names may hold anything."""
    return " ".join(text.split())
