"""Scores of layout, look, diversity, realism and reconstruction, and the record of their protocol (evaluation)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sisug.metrics.clusters import ClusterAgreement, ClusterScores, cluster_purity, colour_bins
    from sisug.metrics.diversity import FeatureDiversity, LookDiversity, PerceptualDiversity, look_diversity
    from sisug.metrics.extractor import NamedExtractor
    from sisug.metrics.frechet import FrechetDistance
    from sisug.metrics.inception import InceptionFeatures
    from sisug.metrics.interval import Interval, mean_interval
    from sisug.metrics.kernel import KernelDistance
    from sisug.metrics.landmarks import LandmarkError, normalized_mean_error
    from sisug.metrics.look import LookDifference
    from sisug.metrics.manifold import ManifoldResult, ManifoldScores
    from sisug.metrics.per_image import PerImageResult, PerImageSegmentationScore
    from sisug.metrics.random_features import RandomFeatures
    from sisug.metrics.real_statistics import fill_real_side, fingerprint_files
    from sisug.metrics.realism import RealismResult, RealismScores
    from sisug.metrics.reconstruction import PerceptualDistance, ReconstructionPSNR, lpips_if_available
    from sisug.metrics.record import ProtocolRecord
    from sisug.metrics.segmentation import SegmentationResult, SegmentationScore

__all__ = [
    "ClusterAgreement",
    "ClusterScores",
    "FeatureDiversity",
    "FrechetDistance",
    "InceptionFeatures",
    "Interval",
    "KernelDistance",
    "LandmarkError",
    "LookDifference",
    "LookDiversity",
    "ManifoldResult",
    "ManifoldScores",
    "NamedExtractor",
    "PerImageResult",
    "PerImageSegmentationScore",
    "PerceptualDistance",
    "PerceptualDiversity",
    "ProtocolRecord",
    "RandomFeatures",
    "RealismResult",
    "RealismScores",
    "ReconstructionPSNR",
    "SegmentationResult",
    "SegmentationScore",
    "cluster_purity",
    "colour_bins",
    "fill_real_side",
    "fingerprint_files",
    "look_diversity",
    "lpips_if_available",
    "mean_interval",
    "normalized_mean_error",
]

_FILES = {
    "clusters": ("ClusterAgreement", "ClusterScores", "cluster_purity", "colour_bins"),
    "diversity": ("FeatureDiversity", "LookDiversity", "PerceptualDiversity", "look_diversity"),
    "extractor": ("NamedExtractor",),
    "frechet": ("FrechetDistance",),
    "inception": ("InceptionFeatures",),
    "interval": ("Interval", "mean_interval"),
    "kernel": ("KernelDistance",),
    "landmarks": ("LandmarkError", "normalized_mean_error"),
    "look": ("LookDifference",),
    "manifold": ("ManifoldResult", "ManifoldScores"),
    "per_image": ("PerImageResult", "PerImageSegmentationScore"),
    "random_features": ("RandomFeatures",),
    "real_statistics": ("fill_real_side", "fingerprint_files"),
    "realism": ("RealismResult", "RealismScores"),
    "reconstruction": ("PerceptualDistance", "ReconstructionPSNR", "lpips_if_available"),
    "record": ("ProtocolRecord",),
    "segmentation": ("SegmentationResult", "SegmentationScore"),
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: torchmetrics and kornia take seconds to import, which `sisug --help` must not pay.
    for file, names in _FILES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
