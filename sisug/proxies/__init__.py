"""Proxies: the codebook of generator features, the proxy masks it gives, and the callback that keeps it up to date."""

from sisug.proxies.codebook import Codebook
from sisug.proxies.kmeans import KMeansFit, fit_kmeans, match_labels
from sisug.proxies.online_clustering import OnlineClustering

__all__ = ["Codebook", "KMeansFit", "OnlineClustering", "fit_kmeans", "match_labels"]
