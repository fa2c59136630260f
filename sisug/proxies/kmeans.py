"""k-means behind one function (faiss-gpu, faiss-cpu, torch): how the codebook of proxy masks is fitted (stage 1)."""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from sisug.errors import CodebookError

Backend = Literal["auto", "faiss-gpu", "faiss-cpu", "torch"]

_ROWS_AT_ONCE = 8192
"""Rows whose distances are held at once: small enough for the cache, large enough for a fast matrix product."""


@dataclass(frozen=True)
class KMeansFit:
    """A fitted set of centroids and what a log should say about it.

    Args:
        centroids: cluster centres, on the device of the rows.
        inertia: mean over rows of the squared distance to the nearest centroid.
        sizes: rows that chose each cluster, counted after the last update.
        empty: clusters that no row chose at the end.
        relocated: how often a cluster that ran empty on the way was moved (torch) or split off a large one (faiss).
        seconds: wall-clock time of the fit.
        backend: the backend that did the work.
    """

    centroids: Float[Tensor, "clusters channel"]
    inertia: float
    sizes: Int64[Tensor, " clusters"]
    empty: int
    relocated: int
    seconds: float
    backend: Literal["faiss-gpu", "faiss-cpu", "torch"]


def fit_kmeans(
    rows: Shaped[Tensor, "rows channel"],
    clusters: int,
    *,
    seed: int,
    initial: Shaped[Tensor, "initial_clusters initial_channel"] | None = None,
    iterations: int = 25,
    restarts: int = 1,
    backend: Backend = "auto",
) -> KMeansFit:
    """Cluster feature vectors by Lloyd's algorithm; every row counts, none is left out to save time.

    All backends begin with the same k-means++ centroids and are scored by the same code, so that they differ only in
    who runs the iterations. The same seed on the same backend and machine gives the same centroids.

    "auto" takes faiss-gpu where faiss has a GPU build and sees a GPU; else torch for rows on a GPU; else faiss-cpu;
    else torch.

    Args:
        rows: feature vectors, floating point, finite; computed in float32.
        clusters: how many, 2 to the number of rows.
        seed: of the k-means++ draws.
        initial: centroids to go on from (warm start: labels keep their meaning); k-means++ where None.
        iterations: of Lloyd's algorithm, 1 or more; the torch backend ends earlier where no row changes its cluster.
        restarts: fits from different k-means++ draws, of which the one with the lowest inertia is kept; 1 or more.
        backend: who runs the iterations.

    Raises:
        CodebookError: the rows, the initial centroids or the numbers cannot be used, or the backend is not there.

    Source: S. Lloyd, "Least squares quantization in PCM" (1982); D. Arthur and S. Vassilvitskii, "k-means++" (2007), in
    its greedy form. Our choice: clusters that run empty are moved to the rows farthest from their centroid (torch) or
    split off a large cluster (faiss does so by itself), because an empty cluster is a label that no mask ever shows.
    """
    started = time.perf_counter()
    _check_arguments(rows, clusters, initial, iterations, restarts)
    chosen = _choose_backend(backend, rows.device)
    # Channels with a large mean would drown the differences in |x|^2 - 2xc + |c|^2: centre them first. Other devices
    # than these two have no float64.
    device = rows.device if rows.device.type in ("cpu", "cuda") and chosen != "faiss-cpu" else torch.device("cpu")
    with torch.no_grad(), torch.autocast(device.type, enabled=False), _full_precision():
        centred = rows.detach().to(device, torch.float32, copy=True)
        _check_finite(centred, "rows", "look for a loss that diverged, or collect features in float32")
        mean = _mean(centred)
        centred -= mean
        if initial is None:
            starts = [
                _plus_plus(centred, clusters, torch.Generator().manual_seed(seed + restart))
                for restart in range(restarts)
            ]
        else:
            starts = [initial.detach().to(device, torch.float32) - mean]
        fits = []
        for start in starts:
            if chosen == "torch":
                centroids, relocated = _lloyd_torch(centred, start, iterations)
            else:
                centroids, relocated = _lloyd_faiss(centred, start, iterations, seed, gpu=chosen == "faiss-gpu")
            fits.append((*_score(centred, centroids), centroids, relocated))
        inertia, sizes, centroids, relocated = min(fits, key=lambda fit: fit[0])
        return KMeansFit(
            centroids=(centroids + mean).to(rows.device),
            inertia=inertia,
            sizes=sizes.to(rows.device),
            empty=int((sizes == 0).sum()),
            relocated=relocated,
            seconds=time.perf_counter() - started,
            backend=chosen,
        )


def match_labels(
    old: Float[Tensor, "clusters channel"], new: Float[Tensor, "new_clusters new_channel"]
) -> Int64[Tensor, " clusters"]:
    """Pair new centroids with old ones so that labels keep their identity over a cold restart.

    Args:
        old: centroids whose labels are in use.
        new: centroids of an independent fit, in any order.

    Returns:
        order: `new[order]` carries the labels of `old`; the pairing with the least sum of squared distances.

    Raises:
        CodebookError: the two sets differ in shape or hold values that are not finite.

    Source: our choice, the assignment problem (scipy.optimize.linear_sum_assignment).
    """
    from scipy.optimize import linear_sum_assignment

    if old.shape != new.shape or old.dim() != 2:
        raise CodebookError(
            f"old centroids have the shape {tuple(old.shape)}, new ones {tuple(new.shape)}",
            "labels can be matched one to one only between codebooks of one size",
            "fit the new centroids with the number of clusters and the channels of the old ones",
        )
    _check_finite(old, "old centroids", "fit the codebook afresh")
    _check_finite(new, "new centroids", "fit the codebook afresh")
    distances = torch.cdist(
        old.detach().cpu().double(), new.detach().cpu().double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    _, order = linear_sum_assignment(distances.square().numpy())
    return torch.from_numpy(order).to(old.device, torch.int64)


def _check_arguments(rows: Tensor, clusters: int, initial: Tensor | None, iterations: int, restarts: int) -> None:
    """Refuse what cannot be clustered before anything expensive runs (and before C++ aborts with its own words)."""
    if rows.dim() != 2 or rows.shape[1] == 0:
        raise CodebookError(
            f"rows have the shape {tuple(rows.shape)}",
            "k-means takes one feature vector a row",
            "flatten feature maps (batch, channel, height, width) to (batch * height * width, channel)",
        )
    for name, tensor in (("rows", rows), ("initial centroids", initial)):
        if tensor is not None and not tensor.is_floating_point():
            raise CodebookError(
                f"{name} have the type {tensor.dtype}",
                "distances are computed in floating point",
                "pass features, not labels; convert them with .float() if they are meant",
            )
    if clusters < 2:
        raise CodebookError(
            f"{clusters} clusters were asked for", "a mask needs two labels or more", "ask for 2 or more clusters"
        )
    if len(rows) < clusters:
        raise CodebookError(
            f"{len(rows)} rows for {clusters} clusters",
            "every cluster needs a row of its own",
            f"collect at least {clusters} rows (more samples) or ask for at most {len(rows)} clusters",
        )
    if iterations < 1 or restarts < 1:
        raise CodebookError(
            f"iterations={iterations}, restarts={restarts}", "both are counts of work to do", "pass 1 or more for each"
        )
    if initial is None:
        return
    _check_initial(initial, clusters, rows.shape[1], restarts)


def _check_initial(initial: Tensor, clusters: int, channels: int, restarts: int) -> None:
    if tuple(initial.shape) != (clusters, channels):
        raise CodebookError(
            f"initial centroids have the shape {tuple(initial.shape)}",
            f"{clusters} clusters of {channels} channels were asked for",
            f"pass initial centroids of the shape {(clusters, channels)}, or none for a cold start",
        )
    if restarts > 1:
        raise CodebookError(
            f"restarts={restarts} together with initial centroids",
            "every restart would begin at the same centroids and end at the same result",
            "pass restarts=1 for a warm start, or no initial centroids for the best of several cold ones",
        )
    _check_finite(initial, "initial centroids", "start without initial centroids")


def _check_finite(tensor: Tensor, name: str, remedy: str) -> None:
    # Squares are what is compared, so they must be finite too.
    bad = sum(int((~chunk.float().square().sum(dim=1).isfinite()).sum()) for _, chunk in _chunks(tensor))
    if bad:
        raise CodebookError(
            f"{bad} of {len(tensor)} {name} hold NaN, infinity or values whose square overflows float32",
            "distances to them are not defined",
            remedy,
        )


def _choose_backend(asked: Backend, device: torch.device) -> Literal["faiss-gpu", "faiss-cpu", "torch"]:
    if asked == "torch":
        return "torch"
    faiss = _import_faiss()
    # A CPU build accepts gpu=True and runs on the CPU without a word: ask the build itself.
    gpu = faiss is not None and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    if asked == "auto":
        if gpu:
            return "faiss-gpu"
        return "faiss-cpu" if faiss is not None and device.type != "cuda" else "torch"
    if asked == "faiss-gpu":
        if not gpu:
            raise CodebookError(
                "backend 'faiss-gpu' was asked for",
                "faiss is not installed"
                if faiss is None
                else "the installed faiss sees no GPU"
                if hasattr(faiss, "StandardGpuResources")
                else "the installed faiss is a build without GPU support",
                "install sisug[gpu] (the package faiss-gpu in place of faiss-cpu, never both) on a machine with an "
                "NVIDIA GPU, or choose backend 'auto', 'faiss-cpu' or 'torch'",
            )
        return "faiss-gpu"
    if asked == "faiss-cpu":
        if faiss is None:
            raise CodebookError(
                "backend 'faiss-cpu' was asked for",
                "faiss is not installed",
                "install the package faiss-cpu, or choose backend 'torch'",
            )
        return "faiss-cpu"
    raise CodebookError(
        f"backend {asked!r} was asked for",
        "there is no such backend",
        "choose 'auto', 'faiss-gpu', 'faiss-cpu' or 'torch'",
    )


def _import_faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError:
        return None


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Switch off TF32 and bfloat16 products: three digits are too few to tell near centroids apart."""
    kinds = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]  # not in the stubs
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value


def _chunks(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        yield part, rows[part]


def _mean(rows: Float[Tensor, "rows channel"]) -> Float[Tensor, " channel"]:
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for _, chunk in _chunks(rows):
        total += chunk.sum(dim=0, dtype=torch.float64)
    return (total / len(rows)).float()


def _squared_distances(
    rows: Float[Tensor, "rows channel"], norms: Float[Tensor, " rows"], points: Float[Tensor, "points channel"]
) -> Float[Tensor, "rows points"]:
    """Squared distances from |x|^2 (`norms`, computed once) - 2xc + |c|^2."""
    out = torch.addmm(norms[:, None], rows, points.T, alpha=-2)
    return out.add_(points.square().sum(dim=1)).clamp_min_(0)


def _plus_plus(
    rows: Float[Tensor, "rows channel"], clusters: int, generator: torch.Generator
) -> Float[Tensor, "clusters channel"]:
    """Greedy k-means++: of a few draws in proportion to the squared distance, keep the one that lowers it most."""
    candidates = 2 + int(math.log(clusters))
    chosen = int(torch.randint(len(rows), (1,), generator=generator))
    indices = [chosen]
    norms = torch.cat([chunk.square().sum(dim=1) for _, chunk in _chunks(rows)])
    nearest = _squared_distances(rows, norms, rows[chosen : chosen + 1])[:, 0]
    for _ in range(1, clusters):
        # The running sum is taken on the CPU: on CUDA its order of addition, and so the draw, is not reproducible.
        running = nearest.cpu().double().cumsum(0)
        draws = torch.rand(candidates, generator=generator, dtype=torch.float64)
        if float(running[-1]) > 0:
            picks = torch.searchsorted(running, draws * running[-1], right=True).clamp_max_(len(rows) - 1)
        else:  # fewer distinct rows than clusters: any row is as good as another
            picks = (draws * len(rows)).long()
        picks = picks.to(rows.device)
        distances = torch.minimum(_squared_distances(rows, norms, rows[picks]), nearest[:, None])
        best = int(distances.sum(dim=0, dtype=torch.float64).argmin())
        nearest = distances[:, best]
        nearest[picks[best]] = 0  # rounding may leave a little, and a row must not be drawn twice
        indices.append(int(picks[best]))
    return rows[torch.tensor(indices, device=rows.device)]


def _assign(
    rows: Float[Tensor, "rows channel"], centroids: Float[Tensor, "clusters channel"]
) -> Int64[Tensor, " rows"]:
    labels = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    norms = centroids.square().sum(dim=1)
    for part, chunk in _chunks(rows):
        # |x|^2 is the same for all centroids; `min` is faster than `argmin` on the CPU.
        labels[part] = torch.addmm(norms, chunk, centroids.T, alpha=-2).min(dim=1).indices
    return labels


def _own_distances(
    rows: Float[Tensor, "rows channel"],
    centroids: Float[Tensor, "clusters channel"],
    labels: Int64[Tensor, " rows"],
) -> Float[Tensor, " rows"]:
    """Squared distance of each row to its own centroid, from differences: exact also where clusters are tight."""
    out = rows.new_empty(len(rows))
    for part, chunk in _chunks(rows):
        out[part] = (chunk - centroids[labels[part]]).square().sum(dim=1)
    return out


def _sums(
    rows: Float[Tensor, "rows channel"], labels: Int64[Tensor, " rows"], clusters: int
) -> Float[Tensor, "clusters channel"]:
    """Sum of the rows of each cluster, in float64."""
    sums = torch.zeros(clusters, rows.shape[1], dtype=torch.float64, device=rows.device)
    for part, chunk in _chunks(rows):
        if rows.is_cuda:  # index_add_ adds in no fixed order there; a product does
            sums += torch.nn.functional.one_hot(labels[part], clusters).double().T @ chunk.double()
        else:
            sums.index_add_(0, labels[part], chunk.double())
    return sums


def _lloyd_torch(
    rows: Float[Tensor, "rows channel"], first: Float[Tensor, "clusters channel"], iterations: int
) -> tuple[Float[Tensor, "clusters channel"], int]:
    centroids, clusters, relocated = first, len(first), 0
    before: Tensor | None = None
    for _ in range(iterations):
        labels = _assign(rows, centroids)
        if before is not None and torch.equal(labels, before):
            break
        counts = torch.bincount(labels, minlength=clusters)
        means = (_sums(rows, labels, clusters) / counts.clamp_min(1)[:, None]).float()
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            distances = _own_distances(rows, centroids, labels)
            far = distances.argsort(descending=True, stable=True)[: len(empty)]
            far = far[distances[far] > 0]  # rows that sit on their centroid need no other
            means[empty] = centroids[empty]
            means[empty[: len(far)]] = rows[far]
            relocated += len(far)
        centroids, before = means, labels
    return centroids, relocated


def _lloyd_faiss(
    rows: Float[Tensor, "rows channel"], first: Float[Tensor, "clusters channel"], iterations: int, seed: int, gpu: bool
) -> tuple[Float[Tensor, "clusters channel"], int]:
    faiss = _import_faiss()
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


def _score(
    rows: Float[Tensor, "rows channel"], centroids: Float[Tensor, "clusters channel"]
) -> tuple[float, Int64[Tensor, " clusters"]]:
    labels = _assign(rows, centroids)
    inertia = float(_own_distances(rows, centroids, labels).mean(dtype=torch.float64))
    return inertia, torch.bincount(labels, minlength=len(centroids))
