"""Images in [-1, 1] as the 8-bit colours that a file holds (every stage)."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_bytes(images: Float[Tensor, "*batch 3 height width"]) -> UInt8[Tensor, "*batch 3 height width"]:
    """The bytes that saving images in [-1, 1] would write: clamped, so that nothing wraps around, and rounded.

    Args:
        images: RGB, nominally in [-1, 1]; generators overshoot a little.
    """
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
