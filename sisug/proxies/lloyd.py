"""The arithmetic of k-means (stage 1): starts, assignment and Lloyd's iterations, in torch or by faiss.

Rows are taken in chunks, so that memory does not grow with rows times clusters.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_ROWS_AT_ONCE = 8192
"""Rows whose distances are held at once: small enough for the cache, large enough for a fast matrix product."""


def import_faiss() -> Any:
    """The module faiss, or None where it is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError:
        return None


def chunks(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Parts of the rows, with where they lie."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        yield part, rows[part]


def mean_row(rows: Float[Tensor, "rows channel"]) -> Float[Tensor, " channel"]:
    """Mean of the rows, summed in float64."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for _, chunk in chunks(rows):
        total += chunk.sum(dim=0, dtype=torch.float64)
    return (total / len(rows)).float()


def squared_distances(
    rows: Float[Tensor, "rows channel"], norms: Float[Tensor, " rows"], points: Float[Tensor, "points channel"]
) -> Float[Tensor, "rows points"]:
    """Squared distances from |x|^2 (`norms`, computed once) - 2xc + |c|^2."""
    out = torch.addmm(norms[:, None], rows, points.T, alpha=-2)
    return out.add_(points.square().sum(dim=1)).clamp_min_(0)


def plus_plus(
    rows: Float[Tensor, "rows channel"], clusters: int, generator: torch.Generator
) -> Float[Tensor, "clusters channel"]:
    """Greedy k-means++: of a few draws in proportion to the squared distance, keep the one that lowers it most."""
    candidates = 2 + int(math.log(clusters))
    chosen = int(torch.randint(len(rows), (1,), generator=generator))
    indices = [chosen]
    norms = torch.cat([chunk.square().sum(dim=1) for _, chunk in chunks(rows)])
    nearest = squared_distances(rows, norms, rows[chosen : chosen + 1])[:, 0]
    for _ in range(1, clusters):
        # The running sum is taken on the CPU: on CUDA its order of addition, and so the draw, is not reproducible.
        running = nearest.cpu().double().cumsum(0)
        draws = torch.rand(candidates, generator=generator, dtype=torch.float64)
        if float(running[-1]) > 0:
            picks = torch.searchsorted(running, draws * running[-1], right=True).clamp_max_(len(rows) - 1)
        else:  # fewer distinct rows than clusters: any row is as good as another
            picks = (draws * len(rows)).long()
        picks = picks.to(rows.device)
        distances = torch.minimum(squared_distances(rows, norms, rows[picks]), nearest[:, None])
        best = int(distances.sum(dim=0, dtype=torch.float64).argmin())
        nearest = distances[:, best]
        nearest[picks[best]] = 0  # rounding may leave a little, and a row must not be drawn twice
        indices.append(int(picks[best]))
    return rows[torch.tensor(indices, device=rows.device)]


def assign(rows: Float[Tensor, "rows channel"], centroids: Float[Tensor, "clusters channel"]) -> Int64[Tensor, " rows"]:
    """Label of the nearest centroid of each row."""
    labels = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    norms = centroids.square().sum(dim=1)
    for part, chunk in chunks(rows):
        # |x|^2 is the same for all centroids; `min` is faster than `argmin` on the CPU.
        labels[part] = torch.addmm(norms, chunk, centroids.T, alpha=-2).min(dim=1).indices
    return labels


def own_distances(
    rows: Float[Tensor, "rows channel"],
    centroids: Float[Tensor, "clusters channel"],
    labels: Int64[Tensor, " rows"],
) -> Float[Tensor, " rows"]:
    """Squared distance of each row to its own centroid, from differences: exact also where clusters are tight."""
    out = rows.new_empty(len(rows))
    for part, chunk in chunks(rows):
        out[part] = (chunk - centroids[labels[part]]).square().sum(dim=1)
    return out


def sums(
    rows: Float[Tensor, "rows channel"], labels: Int64[Tensor, " rows"], clusters: int
) -> Float[Tensor, "clusters channel"]:
    """Sum of the rows of each cluster, in float64."""
    sums = torch.zeros(clusters, rows.shape[1], dtype=torch.float64, device=rows.device)
    for part, chunk in chunks(rows):
        if rows.is_cuda:  # index_add_ adds in no fixed order there; a product does
            sums += torch.nn.functional.one_hot(labels[part], clusters).double().T @ chunk.double()
        else:
            sums.index_add_(0, labels[part], chunk.double())
    return sums


def lloyd_torch(
    rows: Float[Tensor, "rows channel"], first: Float[Tensor, "clusters channel"], iterations: int
) -> tuple[Float[Tensor, "clusters channel"], int]:
    """Lloyd's iterations in torch: centroids, and how often a cluster that ran empty was moved."""
    centroids, clusters, relocated = first, len(first), 0
    before: Tensor | None = None
    for _ in range(iterations):
        labels = assign(rows, centroids)
        if before is not None and torch.equal(labels, before):
            break
        counts = torch.bincount(labels, minlength=clusters)
        means = (sums(rows, labels, clusters) / counts.clamp_min(1)[:, None]).float()
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            distances = own_distances(rows, centroids, labels)
            far = distances.argsort(descending=True, stable=True)[: len(empty)]
            far = far[distances[far] > 0]  # rows that sit on their centroid need no other
            means[empty] = centroids[empty]
            means[empty[: len(far)]] = rows[far]
            relocated += len(far)
        centroids, before = means, labels
    return centroids, relocated


def lloyd_faiss(
    rows: Float[Tensor, "rows channel"], first: Float[Tensor, "clusters channel"], iterations: int, seed: int, gpu: bool
) -> tuple[Float[Tensor, "clusters channel"], int]:
    """Lloyd's iterations by faiss: centroids, and how often a cluster was split for an empty one."""
    faiss = import_faiss()
    clusters, channels = first.shape
    kmeans = faiss.Kmeans(
        channels,
        clusters,
        niter=iterations,
        nredo=1,
        seed=seed % 2**31,
        spherical=False,
        verbose=False,
        # faiss warns on stderr below 39 rows a cluster and drops rows in silence above 256.
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    resources = None  # must outlive the index
    if gpu:
        resources = faiss.StandardGpuResources()
        # The GPU that holds the rows, not all of them: the others belong to other ranks.
        kmeans.index = faiss.index_cpu_to_gpu(resources, rows.device.index or 0, faiss.IndexFlatL2(channels))
    threads = faiss.omp_get_max_threads()
    # torch and faiss bring an OpenMP runtime each, which together crash on macOS unless faiss keeps to one thread.
    faiss.omp_set_num_threads(1 if sys.platform == "darwin" else torch.get_num_threads())
    try:
        kmeans.train(rows.cpu().numpy(), init_centroids=first.cpu().numpy())
    finally:
        faiss.omp_set_num_threads(threads)
    centroids = torch.from_numpy(kmeans.centroids.copy()).to(rows.device)
    return centroids, sum(int(step["nsplit"]) for step in kmeans.iteration_stats)


def score(
    rows: Float[Tensor, "rows channel"], centroids: Float[Tensor, "clusters channel"]
) -> tuple[float, Int64[Tensor, " clusters"]]:
    """Mean squared distance of rows to their centroid, and the rows of each cluster."""
    labels = assign(rows, centroids)
    inertia = float(own_distances(rows, centroids, labels).mean(dtype=torch.float64))
    return inertia, torch.bincount(labels, minlength=len(centroids))
