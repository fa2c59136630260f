"""A judge of faces by their landmarks: oval, brows, eyes, nose, lips and mouth; no label taught it (evaluation)."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image, ImageDraw

from sisug.faces import FaceLandmarks
from sisug.faces.topology import PARTS
from sisug.labels.label_sets import LABEL_SETS, LabelSet
from sisug.segmentation.judges.network_judge import judged_images
from sisug.types import Images, Masks

LANDMARKS = "face-landmarks"
"""The judge's name where one is asked for, and its label set's."""

UNKNOWN = "other"

FINER = 4
"""Outlines are drawn so many times larger, so that a pixel belongs to the part that covers its center."""


def _labels() -> LabelSet:
    faces = LABEL_SETS["faces"]
    names = list(dict.fromkeys(name for name, _ in PARTS))
    colors = dict(zip(faces.classes, faces.palette, strict=True))
    return LabelSet(LANDMARKS, (UNKNOWN, *names), (colors["background"], *(colors[name] for name in names)))


LANDMARK_LABELS = _labels()
"""What landmarks outline, and "other" for everything else: hair, ears, neck, clothes, hats, glasses, background."""


class FaceLandmarkJudge:
    """Masks of the parts of a face that its landmarks outline.

    The oval is the face as if nothing covered it, so that hair over the forehead counts as skin here. An image without
    a face is "other" everywhere. A partial judge, see `PartialJudge`.

    Attributes:
        labels: `LANDMARK_LABELS`.
        unknown: "other".
        fingerprint: digests of the networks.

    Raises:
        CheckpointError: the networks cannot be fetched or loaded.
        ConfigError: no package that runs them is installed.
    """

    def __init__(self) -> None:
        self.labels, self.unknown, self.name = LANDMARK_LABELS, UNKNOWN, "face-landmarks-468"
        self.landmarks = FaceLandmarks()
        self.fingerprint = self.landmarks.fingerprint

    def to(self, *args: Any, **kwargs: Any) -> FaceLandmarkJudge:
        """Stays on the CPU; images may lie anywhere."""
        return self

    def segment(self, images: Images) -> Masks:
        """Masks in the numbers of ``labels``, at the images' own size.

        Args:
            images: in [-1, 1].

        Raises:
            DataError: no images, or values that are not finite.
        """
        points = self.landmarks(judged_images(images)).points.cpu()
        masks = [painted(each, int(images.shape[-2]), int(images.shape[-1])) for each in points]
        return torch.stack(masks).to(images.device)


def painted(points: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The mask of one face, int64 (height, width), in the numbers of `LANDMARK_LABELS`.

    Args:
        points: landmarks (point, 3), pixels; NaN where there is no face.
        height: of the mask, pixels.
        width: of the mask, pixels.
    """
    mask = torch.zeros(height, width, dtype=torch.int64)
    if bool(points.isnan().any()):
        return mask
    corners = (points[:, :2] * FINER).tolist()
    for name, ring in PARTS:
        canvas = Image.new("L", (width * FINER, height * FINER))
        ImageDraw.Draw(canvas).polygon([tuple(corners[number]) for number in ring], fill=1)
        inside = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8).view(height * FINER, width * FINER)
        mask[inside[FINER // 2 :: FINER, FINER // 2 :: FINER] > 0] = LANDMARK_LABELS.number(name)
    return mask
