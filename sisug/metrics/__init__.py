"""Scores of layout, look, realism and reconstruction, and the record of their protocol (evaluation of both stages)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sisug.metrics.clusters import ClusterAgreement, ClusterScores, cluster_purity, colour_bins
    from sisug.metrics.frechet import FrechetDistance
    from sisug.metrics.look import LookDifference
    from sisug.metrics.random_features import RandomFeatures
    from sisug.metrics.reconstruction import PerceptualDistance, ReconstructionPSNR, lpips_if_available
    from sisug.metrics.record import ProtocolRecord, command_line, git_commit, library_versions, machine
    from sisug.metrics.segmentation import SegmentationResult, SegmentationScore

__all__ = [
    "ClusterAgreement",
    "ClusterScores",
    "FrechetDistance",
    "LookDifference",
    "PerceptualDistance",
    "ProtocolRecord",
    "RandomFeatures",
    "ReconstructionPSNR",
    "SegmentationResult",
    "SegmentationScore",
    "cluster_purity",
    "colour_bins",
    "command_line",
    "git_commit",
    "library_versions",
    "lpips_if_available",
    "machine",
]

_FILES = {
    "clusters": ("ClusterAgreement", "ClusterScores", "cluster_purity", "colour_bins"),
    "frechet": ("FrechetDistance",),
    "look": ("LookDifference",),
    "random_features": ("RandomFeatures",),
    "reconstruction": ("PerceptualDistance", "ReconstructionPSNR", "lpips_if_available"),
    "record": ("ProtocolRecord", "command_line", "git_commit", "library_versions", "machine"),
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
