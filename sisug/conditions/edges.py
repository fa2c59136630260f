"""Edges as conditions: soft contours of images; also reads the edge maps of other detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from kornia.filters import canny
from torch import Tensor

from sisug.conditions.condition import Condition, Encoded
from sisug.conditions.freehand import blur, scale_of, to_unit, uniform
from sisug.conditions.labels import LabelSet
from sisug.conditions.lines import contours, read_lines
from sisug.errors import ConfigError
from sisug.types import Images, Masks

SMOOTHING = 0.7
"""Strongest blur before edges are sought, standard deviation in pixels at 64."""

DETECTORS = ("sobel", "canny")


class Edges(Condition):
    """Edge map: 0 for none, 1 for the strongest.

    Soft by default: the slope of colours, blurred and cut at random levels, from broad and pale to nearly binary, so
    that a mapper trained on it holds for edges of other detectors. Files of HED or similar networks (soft edges, light
    on dark or inverted) are read as they are; none of those networks is needed to train.

    Args:
        labels: kept for the checkpoint; edges need none.
        detector: "sobel" (soft) or "canny" (one pixel wide, two strengths).

    Raises:
        ConfigError: for another detector.

    Source: Sobel's and Canny's filters as kornia has them; ranges are our choice, by eye on avatars.
    """

    name = "edges"

    def __init__(self, labels: LabelSet | None = None, *, detector: str = "sobel") -> None:
        super().__init__(labels)
        if detector not in DETECTORS:
            raise ConfigError(f"edge detector {detector!r}", f"there are {', '.join(DETECTORS)}", "choose one of these")
        self.detector = detector

    @property
    def options(self) -> dict[str, Any]:
        return {"detector": self.detector}

    def extract(self, images: Images, masks: Masks | None, random: torch.Generator) -> Encoded:
        largest = SMOOTHING * scale_of(images)
        sigma = uniform(random, 0.3 * largest, largest, images)
        smooth = blur(images, sigma, largest)
        if self.detector == "canny":
            return _canny(smooth, random)
        low = uniform(random, 0.03, 0.12, images)[:, None, None, None]
        span = uniform(random, 0.15, 0.5, images)[:, None, None, None]
        # Edge networks mark parts that differ little nearly as strongly as others; a power below 1 does the same.
        power = uniform(random, 0.4, 1.0, images)[:, None, None, None]
        return to_unit(((contours(smooth, sigma) - low) / span).clamp(0, 1) ** power)

    def load(self, path: Path, size: int) -> Float[Tensor, "1 size size"]:
        return read_lines(path, size)


def _canny(images: Images, random: torch.Generator) -> Encoded:
    """Crests of the slope in any colour channel: 1 above a threshold, 0.5 for those above half of it.

    Without hysteresis, which takes kornia a hundred times as long on a CPU. It takes one pair of thresholds a call, so
    the samples of a batch share them.
    """
    high = float(uniform(random, 0.1, 0.3, images[:1]))
    channels = (images + 1).flatten(0, 1)[:, None] / 2
    found = canny(channels, high / 2, high, kernel_size=3, sigma=(0.5, 0.5), hysteresis=False)[1]
    return found.view_as(images).amax(dim=1, keepdim=True)
