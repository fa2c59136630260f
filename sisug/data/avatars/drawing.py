"""Draw one avatar and its exact mask from a seed: the data that every stage is measured on."""

from __future__ import annotations

import copy
import io
import json
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np
import resvg_py
from dicebear import Avatar, Style
from PIL import Image

from sisug.errors import ConfigError, DataError
from sisug.labels.label_sets import AVATARS

DRAWING_VERSION = 1
"""Raise it with every change of this file that changes a pixel: caches and judges made before are then out of date."""

BACKGROUNDS = ("b6e3f4", "c0aede", "d1d4f9", "ffd5dc", "ffdfbf", "e9f5c7", "f3e3b6", "cfd8dc")
"""The eight pastel backgrounds that the shipped generator was trained on."""

SHADOW_OPACITY = 0.3
"""Fills up to this opacity are shading: they leave a pixel's class to what lies beneath, so that the shadow of a hat on
a forehead stays skin. Our choice: the style's shading has 0.08 to 0.3, its eyes, brows and mouths 0.36 or more."""

SMALLEST, LARGEST = 16, 1024

_COMPONENT_CLASSES = {
    "accessories": "accessories",
    "clothes": "clothes",
    "clothesGraphic": "clothes",
    "eyebrows": "eyebrows",
    "eyes": "eyes",
    "facialHair": "facial_hair",
    "mouth": "mouth",
    "nose": "nose",
}
# The one part that the style draws as nothing but shading, and that we want to see.
_DRAWN_AS_SHADING = {"nose"}


def style_version() -> str:
    """What decides every pixel of a given seed and size: drawing code, style and its interpreter, rasteriser."""
    packages = ("dicebear-core", "dicebear-styles", "resvg-py")
    return "+".join([f"drawing-{DRAWING_VERSION}", *(f"{name}-{version(name)}" for name in packages)])


def draw_avatar(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the avatar of a seed and its mask.

    The mask is a second rendering of the same options from a copy of the style in which every part is painted in its
    class colour, without opacity, blending or anti-aliasing: exact by construction. The style is "avataaars" by Pablo
    Stanley, as a DiceBear definition.

    Args:
        seed: any integer of 0 or more; equal seeds give equal avatars at every size.
        size: height and width in pixels, 16 to 1024.

    Returns:
        uint8 RGB image (size, size, 3) and uint8 mask (size, size) in the numbers of ``AVATARS``.

    Raises:
        ConfigError: for a seed or size out of range.
        DataError: when the rendered mask has a colour outside the palette, which a change of the style could cause.
    """
    check_size(size)
    if seed < 0:
        raise ConfigError(f"avatar seed {seed}", "seeds count from 0", "use a seed of 0 or more")
    options = {"seed": str(seed), "backgroundColor": list(BACKGROUNDS)}
    image_style, mask_style = _styles()
    image = _rasterise(str(Avatar(image_style, options)), size)
    options["backgroundColor"] = [_hex("background")]
    painted = _rasterise(str(Avatar(mask_style, options)), size)
    return image, _classes(painted, seed)


def check_size(size: int) -> None:
    """Refuse sizes at which avatars cannot be drawn sensibly.

    Args:
        size: height and width in pixels.

    Raises:
        ConfigError: outside 16 to 1024.
    """
    if not SMALLEST <= size <= LARGEST:
        raise ConfigError(
            f"avatars of {size} px",
            f"they are drawn at {SMALLEST} to {LARGEST} px: below, the eyes vanish; above, memory does",
            f"choose a resolution of {SMALLEST} to {LARGEST}",
        )


@cache
def _styles() -> tuple[Style, Style]:
    """The style as published and its copy painted in class colours; read once a process."""
    definition = json.loads(files("dicebear_styles").joinpath("avataaars.json").read_text(encoding="utf-8"))
    return Style(definition), Style(paint_classes(definition))


def paint_classes(definition: dict[str, Any]) -> dict[str, Any]:
    """A copy of the avataaars style in which every fill is the colour of its class.

    Args:
        definition: the style as DiceBear publishes it.

    Returns:
        The painted style; the definition itself is left alone.

    Raises:
        DataError: when the style has parts that this code does not know, as a new release may.
    """
    painted = copy.deepcopy(definition)
    painted["attributes"] = {**painted.get("attributes", {}), "shape-rendering": "crispEdges"}
    _paint(painted["canvas"]["elements"], "skin")
    for name, component in painted["components"].items():
        for variant in component["variants"].values():
            if name == "top":
                _paint_top(variant["elements"])
            elif name in _COMPONENT_CLASSES:
                _paint(variant["elements"], _COMPONENT_CLASSES[name], shading=name in _DRAWN_AS_SHADING)
            else:
                raise _unknown(f"component {name!r}")
    return painted


def _paint_top(elements: list[dict[str, Any]]) -> None:
    """Hats are whatever contains the hat's colour; in hair, what has an opaque colour of its own is an accessory."""
    is_hat = any(_colour_name(element) == "hat" for element in elements)
    for element in elements:
        attributes = element.get("attributes", {})
        is_ornament = isinstance(attributes.get("fill"), str) and "fill-opacity" not in attributes  # a band, flowers
        _paint([element], "hat" if is_hat else "accessories" if is_ornament else "hair")


def _colour_name(element: dict[str, Any]) -> str | None:
    fill = element.get("attributes", {}).get("fill")
    return fill.get("name") if isinstance(fill, dict) else None


def _is_shading(attributes: dict[str, Any]) -> bool:
    opacity = float(attributes.get("fill-opacity", 1)) * float(attributes.get("opacity", 1))
    return opacity <= SHADOW_OPACITY


def _paint(elements: list[dict[str, Any]], class_name: str, *, shading: bool = False) -> None:
    """Paint a tree of elements; ``shading`` paints shades too."""
    for element in elements:
        attributes = element.get("attributes", {})
        if "stroke" in attributes:
            raise _unknown("a stroke")
        if element.get("type") == "element" and "fill" in attributes and attributes["fill"] != "none":
            visible = shading or not _is_shading(attributes)
            attributes["fill"] = "#" + _hex(class_name) if visible else "none"
        for name in ("fill-opacity", "opacity", "style"):  # style holds blend modes only
            attributes.pop(name, None)
        if element.get("name") != "defs":  # gradients, which no fill refers to any more
            _paint(element.get("children", []), class_name, shading=shading)


def _unknown(part: str) -> DataError:
    return DataError(
        f"the avataaars style has {part}, which no class is known for",
        f"dicebear-styles {version('dicebear-styles')} differs from the release that this code was written for",
        "install the version that constraints.txt names",
    )


def _hex(class_name: str) -> str:
    return "{:02x}{:02x}{:02x}".format(*AVATARS.palette[AVATARS.number(class_name)])


def _rasterise(svg: str, size: int) -> np.ndarray:
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _classes(rgb: np.ndarray, seed: int) -> np.ndarray:
    """Class numbers of a rendering in class colours."""
    weights = np.array([1 << 16, 1 << 8, 1])
    codes = rgb.astype(np.int64) @ weights
    known = np.array(AVATARS.palette) @ weights
    order = np.argsort(known)
    position = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
    foreign = known[order][position] != codes
    if foreign.any():
        raise DataError(
            f"the mask of avatar {seed} has {int(foreign.sum())} pixels outside the palette",
            "the style or the rasteriser mixes class colours",
            "install the versions that constraints.txt names",
        )
    return order[position].astype(np.uint8)
