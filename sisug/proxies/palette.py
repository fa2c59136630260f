"""Colours for proxy masks (proxies): clusters have no names, so they need colours that are easily told apart."""

from __future__ import annotations

import colorsys

import torch
from jaxtyping import UInt8
from torch import Tensor

from sisug.types import Masks

_GOLDEN_RATIO = 0.618033988749895


def proxy_palette(clusters: int) -> UInt8[Tensor, "labels 3"]:
    """256 colours: one for each cluster, black for everything else.

    Hues go round by the golden ratio, so that neighbouring labels differ and a label's colour does not depend on their
    number.
    """
    palette = torch.zeros(256, 3, dtype=torch.uint8)
    for label in range(clusters):
        hue = (label * _GOLDEN_RATIO) % 1.0
        saturation, value = (0.55, 0.95) if label % 2 else (0.85, 0.75)
        palette[label] = torch.tensor([round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value)])
    return palette


def colour_proxy_masks(masks: Masks, clusters: int, size: int) -> UInt8[Tensor, "batch 3 size size"]:
    """Proxy masks as pictures, enlarged without blending labels.

    Args:
        masks: proxy masks; 255 becomes black.
        clusters: labels of the codebook.
        size: height and width of the pictures, pixels.
    """
    colours = proxy_palette(clusters).to(masks.device)[masks].permute(0, 3, 1, 2)
    return torch.nn.functional.interpolate(colours, size=(size, size), mode="nearest")
