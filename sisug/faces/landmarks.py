"""468 landmarks of a face, with depth (evaluation of layouts, conditions from photos, alignment)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sisug.errors import DataError
from sisug.faces.cropping import crop, uncrop
from sisug.faces.detection import WIDER, Detection, detect
from sisug.faces.networks import fingerprint, load_networks
from sisug.faces.topology import LEFT_EYE_OUTER, NUM_POINTS, RIGHT_EYE_OUTER
from sisug.types import Images

SIZE = 192
"""Height and width of the network's input, pixels."""

LEAST_SCORE = 0.5
"""Likelihood from which something counts as a face: that of the networks' authors."""


class Faces(NamedTuple):
    """The face of each image.

    Args:
        points: x to the right, y down and z away from the viewer, pixels, from the image's corner (z from the middle
            of the head); NaN where there is no face.
        scores: likelihood that what the points outline is a face, 0 to 1.
    """

    points: Float[Tensor, "batch point 3"]
    scores: Float[Tensor, " batch"]


class FaceLandmarks:
    """Finds the likeliest face of an image and its landmarks; deterministic, on the CPU, about 15 ms an image.

    The face is detected and cropped, and its landmarks are found twice: the second time in a crop by the first ones,
    which sits tighter.

    Attributes:
        fingerprint: digests of the networks.

    Raises:
        CheckpointError: the networks cannot be fetched or loaded.
        ConfigError: no package that runs them is installed.

    Source: Y. Kartynnik et al., "Real-time facial surface geometry from monocular video on mobile GPUs" (2019).
    """

    def __init__(self) -> None:
        self._detection, self._landmarks = load_networks()
        self.fingerprint = fingerprint()

    def to(self, *args: Any, **kwargs: Any) -> FaceLandmarks:
        """Stays on the CPU; images may lie anywhere."""
        return self

    @torch.no_grad()
    def __call__(self, images: Images) -> Faces:
        """The face of each image; NaN where there is none.

        Args:
            images: RGB in [-1, 1]; any height and width.
        """
        rows = [self._face(image) for image in images.detach().float().cpu().clamp(-1, 1)]
        points = torch.stack([each for each, _ in rows]) if rows else torch.zeros(0, NUM_POINTS, 3)
        scores = torch.tensor([score for _, score in rows], dtype=torch.float32)
        return Faces(points.to(images.device), scores.to(images.device))

    def points(self, images: Images, names: list[str] | None = None) -> Float[Tensor, "batch point 3"]:
        """Landmarks of images each of which must show a face.

        Args:
            images: RGB in [-1, 1].
            names: what to call the images in an error; their numbers where None.

        Raises:
            DataError: images without a face; all are named.
        """
        faces = self(images)
        without = torch.nonzero(faces.points[:, 0, 0].isnan()).flatten().tolist()
        if without:
            called = [names[number] if names else f"image {number}" for number in without]
            raise DataError(
                f"no face is found in {', '.join(called[:8])}{' and others' if len(called) > 8 else ''}",
                f"the likeliest place scores {float(faces.scores[without[0]]):.2f}, less than {LEAST_SCORE}",
                "give pictures with one upright face, seen from the front, that fills at least a tenth of the width",
            )
        return faces.points

    def _face(self, image: Float[Tensor, "3 height width"]) -> tuple[Float[Tensor, "point 3"], float]:
        nothing = torch.full((NUM_POINTS, 3), torch.nan)
        found = detect(self._detection, image)
        if found.score < LEAST_SCORE:
            return nothing, found.score
        points, _ = self._read(image, found)
        points, score = self._read(image, _around(points))
        return (points if score >= LEAST_SCORE else nothing), score

    def _read(self, image: Float[Tensor, "3 height width"], place: Detection) -> tuple[Float[Tensor, "point 3"], float]:
        pixels = (crop(image, place.center, place.half, SIZE, "border")[0].permute(1, 2, 0) + 1) / 2
        values, flag = self._landmarks(pixels.contiguous().numpy()[None])
        found = torch.from_numpy(values).view(NUM_POINTS, 3).float() * 2 / SIZE
        flat = uncrop(found[:, :2] - 1, place.center, place.half)
        depth = found[:, 2:] * place.half.norm()
        return torch.cat([flat, depth], dim=1), float(torch.sigmoid(torch.tensor(float(flag[0]))))


def _around(points: Float[Tensor, "point 3"]) -> Detection:
    """The crop around landmarks, turned with the line through the eyes."""
    flat = points[:, :2]
    turn = flat[LEFT_EYE_OUTER] - flat[RIGHT_EYE_OUTER]
    direction = turn / turn.norm().clamp_min(1e-6)
    axes = torch.stack([direction, torch.stack([-direction[1], direction[0]])])
    along = flat @ axes.t()
    low, high = along.amin(dim=0), along.amax(dim=0)
    return Detection(1.0, ((low + high) / 2) @ axes, direction * (high - low).max() / 2 * WIDER)
