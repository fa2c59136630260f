"""Where the face is in an image: the largest likelihood among the network's anchors (readers of faces)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sisug.faces.cropping import crop, uncrop
from sisug.faces.networks import Run

SIZE = 128
"""Height and width of the network's input, pixels."""

GRIDS = ((16, 2), (8, 6))
"""Anchors: cells a side, and anchors in each."""

OVERLAP = 0.3
"""Intersection over union from which two boxes are of one face."""

WIDER = 1.5
"""The crop's side, in longer sides of the face's box."""


class Detection(NamedTuple):
    """A face in an image, as the crop that the network of landmarks reads.

    Args:
        score: likelihood of a face, 0 to 1.
        center: x and y of the crop's center, pixels.
        half: from there to the middle of the crop's right side; turned with the line through the eyes, pixels.
    """

    score: float
    center: Float[Tensor, "2"]
    half: Float[Tensor, "2"]


def detect(network: Run, image: Float[Tensor, "3 height width"]) -> Detection:
    """The likeliest face of an image.

    Args:
        network: of detection.
        image: in [-1, 1].

    Source: V. Bazarevsky et al., "BlazeFace" (2019): anchors without sizes of their own, and overlapping boxes averaged
        by their scores.
    """
    height, width = image.shape[-2:]
    center, half = torch.tensor([width / 2, height / 2]), torch.tensor([max(height, width) / 2, 0.0])
    pixels = crop(image, center, half, SIZE)[0].permute(1, 2, 0).contiguous().numpy()
    boxes, logits = network(pixels[None])
    scores = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100)))
    values = boxes.reshape(len(scores), -1, 2).astype(np.float64) / SIZE
    # A row: center, size, and six points, of which the first two are the eyes; all but the size from the anchor.
    values[:, 0] += _anchors()
    values[:, 2:] += _anchors()[:, None]
    best = int(scores.argmax())
    same = (_overlap(values[best], values) > OVERLAP) & (scores >= scores[best] / 2)
    face = np.average(values[same], axis=0, weights=scores[same])
    middle, size, eyes = face[0], face[1], face[2:4]
    turn = eyes[1] - eyes[0]
    direction = turn / max(float(np.hypot(*turn)), 1e-6)
    place = torch.from_numpy(np.stack([middle]) * 2 - 1).float()
    reach = torch.from_numpy(direction * size.max() * WIDER).float() * half[0]
    return Detection(float(scores[best]), uncrop(place, center, half)[0], reach)


def _anchors() -> np.ndarray:
    """Centers of the anchors, 0 to 1: (anchor, 2)."""
    rows = []
    for side, count in GRIDS:
        y, x = np.mgrid[0:side, 0:side]
        rows.append(np.repeat((np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / side, count, axis=0))
    return np.concatenate(rows)


def _overlap(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with each of others; a row begins with center and size."""
    low = np.maximum(one[0] - one[1] / 2, others[:, 0] - others[:, 1] / 2)
    high = np.minimum(one[0] + one[1] / 2, others[:, 0] + others[:, 1] / 2)
    shared = np.clip(high - low, 0, None).prod(axis=1)
    union = one[1].prod() + others[:, 1].prod(axis=1) - shared
    return shared / np.maximum(union, 1e-12)
