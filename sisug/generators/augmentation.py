"""Random image transformations of discriminator augmentation, as plain functions (generators): what is drawn for each
sample, and how geometry and colours are changed by it, differentiable any number of times.

Written from Karras et al. 2020 (arXiv 2006.06676, section 2.2 and appendix B): its pixel blitting, geometric and colour
transformations ("bgc"). Image-space filtering, noise and cutout are left out: the paper finds that they add little.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sisug.types import Images

# One side of the half-pixel interpolation of Deslauriers and Dubuc (1989) with 12 points, exact for polynomials of
# degree 11. The paper's wavelet (sym6), applied once up and once down, has this response.
HALF_PIXEL_TAPS = tuple(numerator / 2**19 for numerator in (320166, -76230, 22869, -5445, 847, -63))


class Geometry(NamedTuple):
    """Where a sample's pixels go, in the order in which it happens.

    Args:
        flipped: mirror left and right.
        quarter_turns: turns by 90 degrees, counter-clockwise.
        shift: whole pixels to the right and down, as a share of width and height (rounded to pixels).
        scale: enlargement about the centre.
        first_angle: rotation before the stretch, counter-clockwise, radians.
        stretch: width times this, height divided by it.
        second_angle: rotation after the stretch, radians.
        drift: like `shift`, but not rounded.
    """

    flipped: Bool[Tensor, " batch"]
    quarter_turns: Int64[Tensor, " batch"]
    shift: Float[Tensor, "batch 2"]
    scale: Float[Tensor, " batch"]
    first_angle: Float[Tensor, " batch"]
    stretch: Float[Tensor, " batch"]
    second_angle: Float[Tensor, " batch"]
    drift: Float[Tensor, "batch 2"]


class Colour(NamedTuple):
    """What a sample's colours become, in the order in which it happens.

    Args:
        brightness: added to every channel, in units of images in [-1, 1].
        contrast: factor on every channel, about 0.
        negated: mirror the luma (mean of the channels) at 0 and keep the chroma.
        hue: rotation about the grey axis, radians, red towards green.
        saturation: factor on the chroma.
    """

    brightness: Float[Tensor, " batch"]
    contrast: Float[Tensor, " batch"]
    negated: Bool[Tensor, " batch"]
    hue: Float[Tensor, " batch"]
    saturation: Float[Tensor, " batch"]


def draw_geometry(
    probability: Float[Tensor, ""], batch: int, *, flip: bool = True, blit: bool = True, geometry: bool = True
) -> Geometry:
    """Draw one geometric change a sample from the random stream of the probability's device.

    Args:
        probability: of each single transformation, in [0, 1]. One that is not drawn is the identity; a flip or quarter
            turn that is drawn may be the identity too, as all of its outcomes are equally likely.
        batch: samples.
        flip: include mirroring.
        blit: include quarter turns and shifts by whole pixels.
        geometry: include scaling, rotation, stretching and shifts by fractions.

    Source: order and spreads are those of the paper's appendix B.
    """
    device = probability.device
    zeros, ones = torch.zeros(batch, device=device), torch.ones(batch, device=device)
    flipped, turns, shift = zeros > 0, zeros.long(), zeros[:, None].expand(-1, 2)
    scale, first_angle, stretch, second_angle, drift = ones, zeros, ones, zeros, shift
    if flip:
        flipped = _drawn(probability, batch) & (torch.rand(batch, device=device) < 0.5)
    if blit:
        turns = torch.where(_drawn(probability, batch), torch.randint(0, 4, (batch,), device=device), 0)
        shift = torch.where(_drawn(probability, batch)[:, None], _uniform(0.125, (batch, 2), device), 0.0)
    if geometry:
        # Two rotations of this probability each: together they happen with the probability of the others.
        once = 1 - torch.sqrt(1 - probability)
        scale = torch.where(_drawn(probability, batch), _log_normal(0.2 * math.log(2), batch, device), 1.0)
        first_angle = torch.where(_drawn(once, batch), _uniform(math.pi, (batch,), device), 0.0)
        stretch = torch.where(_drawn(probability, batch), _log_normal(0.2 * math.log(2), batch, device), 1.0)
        second_angle = torch.where(_drawn(once, batch), _uniform(math.pi, (batch,), device), 0.0)
        drift = torch.where(_drawn(probability, batch)[:, None], 0.125 * torch.randn(batch, 2, device=device), 0.0)
    return Geometry(flipped, turns, shift, scale, first_angle, stretch, second_angle, drift)


def draw_colour(probability: Float[Tensor, ""], batch: int) -> Colour:
    """Draw one change of colours a sample from the random stream of the probability's device.

    Args:
        probability: of each single transformation, in [0, 1].
        batch: samples.

    Source: order and spreads are those of the paper's appendix B.
    """
    device = probability.device
    return Colour(
        brightness=torch.where(_drawn(probability, batch), 0.2 * torch.randn(batch, device=device), 0.0),
        contrast=torch.where(_drawn(probability, batch), _log_normal(0.5 * math.log(2), batch, device), 1.0),
        negated=_drawn(probability, batch) & (torch.rand(batch, device=device) < 0.5),
        hue=torch.where(_drawn(probability, batch), _uniform(math.pi, (batch,), device), 0.0),
        saturation=torch.where(_drawn(probability, batch), _log_normal(math.log(2), batch, device), 1.0),
    )


def _drawn(probability: Tensor, batch: int) -> Tensor:
    return torch.rand(batch, device=probability.device) < probability


def _uniform(bound: float, shape: tuple[int, ...], device: torch.device) -> Tensor:
    return (2 * torch.rand(shape, device=device) - 1) * bound


def _log_normal(spread: float, batch: int, device: torch.device) -> Tensor:
    return torch.exp(spread * torch.randn(batch, device=device))


def inverse_map(geometry: Geometry, height: int, width: int) -> Float[Tensor, "batch 2 3"]:
    """Where each output pixel comes from: (x, y) of the input = map @ (x, y, 1) of the output.

    Coordinates are pixels from the image's centre, x to the right and y down. Exactly the identity for a sample of
    which nothing was drawn; flips, quarter turns and whole shifts of square images hit pixel centres exactly.

    Args:
        geometry: what was drawn.
        height: of the images, pixels.
        width: of the images, pixels.
    """
    zero, one = torch.zeros_like(geometry.scale), torch.ones_like(geometry.scale)
    size = torch.stack([one * width, one * height], dim=1)
    # Sums and products instead of matrix products, which a GPU may be told to round to 10 bits. Each row is one
    # coordinate as a function of (x, y, 1), undone from the last transformation to the first.
    drift, shift = geometry.drift * size, torch.round(geometry.shift * size)
    x, y = torch.stack([one, zero, -drift[:, 0]], dim=1), torch.stack([zero, one, -drift[:, 1]], dim=1)
    x, y = _turn_back(x, y, geometry.second_angle.cos(), geometry.second_angle.sin())
    x, y = x / geometry.stretch[:, None], y * geometry.stretch[:, None]
    x, y = _turn_back(x, y, geometry.first_angle.cos(), geometry.first_angle.sin())
    x, y = x / geometry.scale[:, None], y / geometry.scale[:, None]
    x, y = x - _last_column(shift[:, 0]), y - _last_column(shift[:, 1])
    turns = geometry.quarter_turns
    cosine, sine = (turns == 0).float() - (turns == 2).float(), (turns == 1).float() - (turns == 3).float()
    x, y = _turn_back(x, y, cosine, sine)
    x = torch.where(geometry.flipped[:, None], -x, x)
    return torch.stack([x, y], dim=1)


def _turn_back(x: Tensor, y: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Undo a counter-clockwise turn (y points down)."""
    cosine, sine = cosine[:, None], sine[:, None]
    return cosine * x - sine * y, sine * x + cosine * y


def _last_column(value: Tensor) -> Tensor:
    zero = torch.zeros_like(value)
    return torch.stack([zero, zero, value], dim=1)


def warp(images: Images, inverse: Float[Tensor, "batch 2 3"]) -> Images:
    """Resample every image; outside lies the image mirrored at the centres of its outermost pixels.

    The images are doubled in size first and the result is read off that by linear interpolation between four
    neighbours, which keeps pixels exact that move by whole numbers.

    Args:
        images: at least 2 px in height and width, float32 or float64.
        inverse: see `inverse_map`.

    Source: our choice. The paper doubles too, but resamples at the double size and filters down again: four times the
    points. On images with the spectrum of photos, shifted, rotated and enlarged, both differ from the exact result by
    the same amount within 1 dB, and plain linear interpolation by 5 dB more. What the paper's way adds is a guard
    against aliasing in images that shrink: 1 dB at a scale of 0.87, which two thirds of them do not pass, and generated
    images alias alike.
    `torch.nn.functional.grid_sample` is no faster and lacks the second derivative that the gradient penalty (R1)
    needs; `gather` has them all.
    """
    batch, channels, height, width = images.shape
    # In this order the products are three times as fast as in the other.
    fine = _doubling(height, images) @ (images.contiguous() @ _doubling(width, images).mT)
    columns = torch.arange(width, device=images.device) - (width - 1) / 2
    rows = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    terms = inverse[..., None, None]
    x = terms[:, 0, 0] * columns + terms[:, 0, 1] * rows + terms[:, 0, 2]
    y = terms[:, 1, 0] * columns + terms[:, 1, 1] * rows + terms[:, 1, 2]
    left, from_left = _neighbours(2 * x + (width - 1), 2 * width - 2)
    top, from_top = _neighbours(2 * y + (height - 1), 2 * height - 2)

    corner = top * fine.shape[3] + left
    index = torch.stack([corner + offset for offset in (0, 1, fine.shape[3], fine.shape[3] + 1)], dim=1)
    # One gather for all four, since its gradient fills an array of the fine image's size.
    corners = fine.flatten(2).gather(2, index.reshape(batch, 1, -1).expand(-1, channels, -1))
    corners = corners.reshape(batch, channels, 4, height, width)
    from_left, from_top = from_left[:, None].to(images.dtype), from_top[:, None].to(images.dtype)
    above = torch.lerp(corners[:, :, 0], corners[:, :, 1], from_left)
    below = torch.lerp(corners[:, :, 2], corners[:, :, 3], from_left)
    return torch.lerp(above, below, from_top)


def _neighbours(position: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """Reflect positions into [0, last]; the pixel before each, and how far towards the next it lies."""
    position = last - (last - position.remainder(2 * last)).abs()
    before = position.floor().clamp(max=last - 1)
    return before.long(), position - before


def _doubling(size: int, like: Tensor) -> Float[Tensor, "fine size"]:
    """Matrix from `size` pixels to 2 size - 1: the pixels themselves, and between each two their interpolation.

    A matrix product, since on a CPU convolution of three channels takes three to seven times as long.
    """
    pixels = torch.eye(size, device=like.device, dtype=like.dtype)
    reach = len(HALF_PIXEL_TAPS)
    last = size - 1
    index = torch.arange(1 - reach, size + reach - 1, device=like.device)
    mirrored = pixels[last - (last - index.remainder(2 * last)).abs()]
    between = torch.zeros_like(pixels[1:])
    for i, tap in enumerate(HALF_PIXEL_TAPS):
        before, after = reach - 1 - i, reach + i
        between = between + tap * (mirrored[before : before + last] + mirrored[after : after + last])
    return torch.cat([torch.stack([pixels[:-1], between], dim=1).flatten(0, 1), pixels[-1:]])


def recolour(images: Images, colour: Colour) -> Images:
    """Change the colours of every image.

    Every transformation acts alike on the three channels: it moves, scales or mirrors along the grey axis, or turns or
    scales around it. So a channel is a weighted sum of itself, the next one and the one before, with the same weights
    for all three, and an untouched sample has the weights 1, 0, 0 exactly.

    Args:
        images: float32 or float64; values may leave [-1, 1], as in the paper.
        colour: what was drawn.
    """
    along = torch.where(colour.negated, -colour.contrast, colour.contrast)
    around = colour.contrast * colour.saturation
    cosine, sine = around * colour.hue.cos(), around * colour.hue.sin() / math.sqrt(3)
    # Rodrigues' rotation about (1, 1, 1) / sqrt(3), its parallel and perpendicular parts scaled by themselves.
    weights = [(along + 2 * cosine) / 3, (along - cosine) / 3 - sine, (along - cosine) / 3 + sine]
    own, following, previous, offset = (
        value.to(images.dtype)[:, None, None, None] for value in (*weights, along * colour.brightness)
    )
    return own * images + following * images.roll(-1, dims=1) + previous * images.roll(1, dims=1) + offset
