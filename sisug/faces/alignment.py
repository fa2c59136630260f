"""Photos cut and turned as those of FFHQ are, which a generator of faces was trained on (inversion, exemplars)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sisug.faces.cropping import crop
from sisug.faces.topology import LEFT_EYE, LEFT_MOUTH_CORNER, RIGHT_EYE, RIGHT_MOUTH_CORNER


def align(
    image: Float[Tensor, "3 height width"], points: Float[Tensor, "point 3"], size: int
) -> Float[Tensor, "1 3 size size"]:
    """A photo as FFHQ would have it: eyes level, face in the middle, at the data set's scale.

    Args:
        image: in [-1, 1].
        points: landmarks of its face, pixels.
        size: height and width of the result, pixels.

    Returns:
        One image. What lies outside of the photo is mirrored at its border; FFHQ blurs it, too.

    Source: T. Karras et al., "A style-based generator architecture for generative adversarial networks" (2019), the
        data set's own recipe, with the eyes' outlines and the mouth's corners in place of dlib's.
    """
    center, half = square_of(points.cpu())
    return crop(image.cpu(), center, half, size, "reflection").clamp(-1, 1).to(image.device)


def square_of(points: Float[Tensor, "point 3"]) -> tuple[Float[Tensor, "2"], Float[Tensor, "2"]]:
    """FFHQ's square around a face: its center, and the way from there to the middle of its right side, pixels.

    Args:
        points: landmarks of the face, pixels.
    """
    flat = points[:, :2]
    first, second = flat[list(RIGHT_EYE)].mean(dim=0), flat[list(LEFT_EYE)].mean(dim=0)
    mouth = (flat[RIGHT_MOUTH_CORNER] + flat[LEFT_MOUTH_CORNER]) / 2
    middle, across = (first + second) / 2, second - first
    to_mouth = mouth - middle
    direction = across + torch.stack([to_mouth[1], -to_mouth[0]])
    reach = torch.maximum(across.norm() * 2.0, to_mouth.norm() * 1.8)
    return middle + to_mouth * 0.1, direction / direction.norm().clamp_min(1e-6) * reach
