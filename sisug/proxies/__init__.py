"""Proxies: the codebook of generator features, the proxy masks it gives, and the callback that keeps it up to date."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sisug.proxies.codebook import Codebook
    from sisug.proxies.kmeans import KMeansFit, fit_kmeans, match_labels
    from sisug.proxies.online_clustering import OnlineClustering

__all__ = ["Codebook", "KMeansFit", "OnlineClustering", "fit_kmeans", "match_labels"]

_FILES = {
    "Codebook": "codebook",
    "KMeansFit": "kmeans",
    "OnlineClustering": "online_clustering",
    "fit_kmeans": "kmeans",
    "match_labels": "kmeans",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: the plain-torch files of this folder need no Lightning.
    if name in _FILES:
        return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
