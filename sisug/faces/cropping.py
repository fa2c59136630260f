"""Rotated square crops of images: for the network of landmarks, and for photos aligned as FFHQ's are."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def crop(
    image: Float[Tensor, "3 height width"],
    center: Float[Tensor, "2"],
    half: Float[Tensor, "2"],
    size: int,
    padding: Literal["zeros", "border", "reflection"] = "zeros",
) -> Float[Tensor, "1 3 size size"]:
    """A rotated square of an image, resized without aliasing.

    Args:
        image: any values.
        center: x and y of the square's center, pixels; the image's corner is at 0, 0.
        half: from the center to the middle of the square's right side, pixels.
        size: height and width of the result, pixels.
        padding: what lies outside of the image.

    Returns:
        One image of that size.
    """
    # Several samples per pixel where the square is larger than the result, which are averaged.
    finer = max(1, math.ceil(2 * float(half.norm()) / size))
    positions = (torch.arange(size * finer, dtype=torch.float32) + 0.5) * 2 / (size * finer) - 1
    down = torch.stack([-half[1], half[0]])
    points = center + positions[None, :, None] * half + positions[:, None, None] * down
    height, width = image.shape[-2:]
    grid = points * 2 / torch.tensor([width, height]) - 1
    sampled = F.grid_sample(image[None].float(), grid[None], padding_mode=padding, align_corners=False)
    return F.avg_pool2d(sampled, finer)


def uncrop(
    points: Float[Tensor, "point 2"], center: Float[Tensor, "2"], half: Float[Tensor, "2"]
) -> Float[Tensor, "point 2"]:
    """Points of a crop in the pixels of the image that it was cut from.

    Args:
        points: x and y from -1 to 1 across the crop.
        center: see `crop`.
        half: see `crop`.
    """
    down = torch.stack([-half[1], half[0]])
    return center + points[:, :1] * half + points[:, 1:] * down
