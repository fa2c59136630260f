"""k-means behind one function (faiss-gpu, faiss-cpu, torch): how the codebook of proxy masks is fitted (stage 1)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from sisug.errors import CodebookError
from sisug.proxies.lloyd import (
    chunks,
    import_faiss,
    lloyd_faiss,
    lloyd_torch,
    mean_row,
    plus_plus,
    score,
)

Backend = Literal["auto", "faiss-gpu", "faiss-cpu", "torch"]


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
        mean = mean_row(centred)
        centred -= mean
        if initial is None:
            starts = [
                plus_plus(centred, clusters, torch.Generator().manual_seed(seed + restart))
                for restart in range(restarts)
            ]
        else:
            starts = [initial.detach().to(device, torch.float32) - mean]
        fits = []
        for start in starts:
            if chosen == "torch":
                centroids, relocated = lloyd_torch(centred, start, iterations)
            else:
                centroids, relocated = lloyd_faiss(centred, start, iterations, seed, gpu=chosen == "faiss-gpu")
            fits.append((*score(centred, centroids), centroids, relocated))
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
    bad = sum(int((~chunk.float().square().sum(dim=1).isfinite()).sum()) for _, chunk in chunks(tensor))
    if bad:
        raise CodebookError(
            f"{bad} of {len(tensor)} {name} hold NaN, infinity or values whose square overflows float32",
            "distances to them are not defined",
            remedy,
        )


def _choose_backend(asked: Backend, device: torch.device) -> Literal["faiss-gpu", "faiss-cpu", "torch"]:
    if asked == "torch":
        return "torch"
    faiss = import_faiss()
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
