"""Depth of a face by its landmarks (condition depth): the face alone, everything else falls away behind it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor, nn

from sisug.faces.landmarks import FaceLandmarks
from sisug.faces.topology import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from sisug.types import Images

RIM = 0.5
"""Depth of the farthest landmark, where the nearest has 1 and the background 0."""

FALL = 0.5
"""Way from the face over which depth falls to a third, in distances of the eyes."""


SMOOTH = 0.06
"""Blur, in distances of the eyes: where the cheek turns away, landmarks lie behind each other."""


FINEST = 256
"""Size at which depth is interpolated at most, pixels: it is smooth."""


class LandmarkDepth(nn.Module):
    """How near each point of a face is, from 0 (background) to 1 (tip of the nose); an image without a face is flat.

    Depth is interpolated between the landmarks; outside of them it falls off, since nothing is known there.

    Attributes:
        fingerprint: digests of the networks.

    Raises:
        CheckpointError: the networks cannot be fetched or loaded.
        ConfigError: no package that runs them is installed.

    Source: our choice: the landmarks' own z, for where no depth network is at hand.
    """

    def __init__(self) -> None:
        super().__init__()
        self.landmarks = FaceLandmarks()
        self.fingerprint = self.landmarks.fingerprint

    def forward(self, images: Images) -> Float[Tensor, "batch 1 height width"]:
        """Depth of each pixel.

        Args:
            images: RGB in [-1, 1].
        """
        height, width = images.shape[-2:]
        shrink = max(1.0, max(height, width) / FINEST)
        small = round(height / shrink), round(width / shrink)
        points = self.landmarks(images).points.cpu() / shrink
        maps = torch.stack([depth_of(each, *small) for each in points])[:, None]
        if small != (height, width):
            maps = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
        return maps.to(images.device)


def depth_of(points: Float[Tensor, "point 3"], height: int, width: int) -> Float[Tensor, "height width"]:
    """Depth by the landmarks of one face; all 0 where they are NaN.

    Args:
        points: landmarks, pixels.
        height: of the map, pixels.
        width: of the map, pixels.
    """
    if bool(points.isnan().any()):
        return torch.zeros(height, width)
    values = points.double().numpy()
    near = -values[:, 2]
    scaled = RIM + (1 - RIM) * (near - near.min()) / max(float(np.ptp(near)), 1e-6)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    depth = LinearNDInterpolator(values[:, :2], scaled)(x, y)
    outside = np.isnan(depth)
    if outside.all():
        return torch.zeros(height, width)
    distance, (row, column) = distance_transform_edt(outside, return_indices=True)
    eyes = max(float(np.hypot(*(values[LEFT_EYE_OUTER, :2] - values[RIGHT_EYE_OUTER, :2]))), 1e-6)
    filled = depth[row, column] * np.exp(-distance / (FALL * eyes))
    return torch.from_numpy(gaussian_filter(filled, SMOOTH * eyes, mode="nearest")).float()
