"""Readers of faces (evaluation, conditions, photos): landmarks with depth, what they outline, and FFHQ's alignment."""

from sisug.faces.alignment import align
from sisug.faces.depth import LandmarkDepth
from sisug.faces.landmarks import FaceLandmarks, Faces

__all__ = ["FaceLandmarks", "Faces", "LandmarkDepth", "align"]
