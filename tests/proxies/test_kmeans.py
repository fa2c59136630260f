"""Tests of the k-means backends against scikit-learn, closed forms and each other (stage 1, codebook)."""

from __future__ import annotations

import importlib
import itertools
import logging
import subprocess
import sys
import types

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from torch import Tensor

from sisug.errors import CodebookError
from sisug.proxies import kmeans as kmeans_file
from sisug.proxies import lloyd as lloyd_file
from sisug.proxies.kmeans import fit_kmeans, match_labels

BACKENDS = ("torch", "faiss-cpu")


def blobs(rows: int = 1200, centers: int = 6, channels: int = 5, spread: float = 0.5, seed: int = 0) -> Tensor:
    points, _ = make_blobs(rows, channels, centers=centers, cluster_std=spread, random_state=seed)
    return torch.from_numpy(points).float()


def exact_inertia(rows: Tensor, centroids: Tensor) -> float:
    differences = rows.double()[:, None] - centroids.double()[None]
    return float(differences.square().sum(dim=2).min(dim=1).values.mean())


def as_set(centroids: Tensor) -> Tensor:
    return centroids[centroids[:, 0].argsort()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_clusters_on_a_line_have_the_closed_form_solution(backend: str) -> None:
    rows = torch.tensor([[-3.0], [-2.0], [-1.0], [7.0], [8.0], [9.0], [12.0]])
    fit = fit_kmeans(rows, 2, seed=3, backend=backend)
    torch.testing.assert_close(as_set(fit.centroids), torch.tensor([[-2.0], [9.0]]))
    # Squared distances (1, 0, 1) and (4, 1, 0, 9) over seven rows.
    assert fit.inertia == pytest.approx(16 / 7, rel=1e-5)
    assert sorted(fit.sizes.tolist()) == [3, 4]
    assert fit.empty == 0
    assert fit.backend == backend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_inertia_is_as_low_as_scikit_learns(backend: str, spread: float) -> None:
    rows = blobs(spread=spread)
    reference = KMeans(6, n_init=5, max_iter=25, random_state=0).fit(rows.numpy()).inertia_ / len(rows)
    fit = fit_kmeans(rows, 6, seed=0, restarts=5, backend=backend)
    assert fit.inertia <= reference * 1.01
    assert fit.inertia == pytest.approx(exact_inertia(rows, fit.centroids), rel=1e-5)
    assert int(fit.sizes.sum()) == len(rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_start_gives_scikit_learns_centroids(backend: str) -> None:
    rows = blobs(spread=4.0)
    first = rows[:6].clone()
    fit = fit_kmeans(rows, 6, seed=0, initial=first, iterations=200, backend=backend)
    reference = KMeans(6, init=first.numpy(), n_init=1, max_iter=200, tol=0, algorithm="lloyd").fit(rows.numpy())
    torch.testing.assert_close(fit.centroids, torch.from_numpy(reference.cluster_centers_), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("iterations", [1, 4, 30])
def test_backends_agree_iteration_by_iteration(iterations: int) -> None:
    rows = blobs(spread=4.0)
    ours = fit_kmeans(rows, 6, seed=5, iterations=iterations, backend="torch")
    theirs = fit_kmeans(rows, 6, seed=5, iterations=iterations, backend="faiss-cpu")
    torch.testing.assert_close(ours.centroids, theirs.centroids, rtol=1e-4, atol=1e-4)
    assert ours.inertia == pytest.approx(theirs.inertia, rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_warm_start_goes_on_where_the_last_fit_ended(backend: str) -> None:
    rows = blobs(spread=4.0)
    short = fit_kmeans(rows, 6, seed=1, iterations=3, backend=backend)
    resumed = fit_kmeans(rows, 6, seed=99, iterations=5, initial=short.centroids, backend=backend)
    whole = fit_kmeans(rows, 6, seed=1, iterations=8, backend=backend)
    torch.testing.assert_close(resumed.centroids, whole.centroids, rtol=1e-4, atol=1e-4)
    assert resumed.inertia < short.inertia
    assert not torch.allclose(short.centroids, whole.centroids, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_seed_decides_everything(backend: str) -> None:
    rows = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
    first = fit_kmeans(rows, 8, seed=11, iterations=3, backend=backend)
    torch.manual_seed(1234)  # the global generator plays no part
    again = fit_kmeans(rows, 8, seed=11, iterations=3, backend=backend)
    other = fit_kmeans(rows, 8, seed=12, iterations=3, backend=backend)
    assert torch.equal(first.centroids, again.centroids)
    assert not torch.allclose(as_set(first.centroids), as_set(other.centroids))


def test_the_global_random_state_and_the_input_are_left_alone() -> None:
    rows = blobs()
    copy, state = rows.clone(), torch.get_rng_state()
    fit_kmeans(rows, 6, seed=0, backend="torch")
    fit_kmeans(rows, 6, seed=0, backend="faiss-cpu")
    assert torch.equal(rows, copy)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_restarts_are_never_worse(backend: str) -> None:
    rows = torch.randn(500, 3, generator=torch.Generator().manual_seed(2))
    inertias = [fit_kmeans(rows, 12, seed=0, iterations=4, restarts=n, backend=backend).inertia for n in (1, 3, 6)]
    assert inertias == sorted(inertias, reverse=True)
    assert inertias[0] > inertias[-1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_row_is_dropped(backend: str) -> None:
    # faiss by itself keeps 256 rows a cluster: 2 of 3 rows here.
    rows = blobs(rows=1536, centers=2)
    fit = fit_kmeans(rows, 2, seed=0, backend=backend)
    reference = KMeans(2, n_init=1, random_state=0).fit(rows.numpy())
    torch.testing.assert_close(
        as_set(fit.centroids), as_set(torch.from_numpy(reference.cluster_centers_)), rtol=1e-5, atol=1e-5
    )
    assert int(fit.sizes.sum()) == 1536


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_common_offset_does_no_harm(backend: str) -> None:
    rows = blobs(rows=400, centers=4, spread=0.2)
    rows = (rows * 256).round() / 256  # exact beside the offset
    plain = fit_kmeans(rows, 4, seed=0, restarts=3, backend=backend)
    moved = fit_kmeans(rows + 8192, 4, seed=0, restarts=3, backend=backend)
    assert moved.inertia == pytest.approx(plain.inertia, rel=1e-3)
    torch.testing.assert_close(as_set(moved.centroids - 8192), as_set(plain.centroids), rtol=0, atol=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cluster_that_starts_empty_is_put_to_use(backend: str) -> None:
    rows = blobs(rows=400, centers=4, spread=0.2)
    first = torch.cat([rows[:3], torch.full((1, rows.shape[1]), 1e4)])
    fit = fit_kmeans(rows, 4, seed=0, initial=first, iterations=20, backend=backend)
    assert fit.relocated >= 1
    assert fit.empty == 0
    assert int(fit.sizes.min()) > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_distinct_rows_than_clusters_leave_empty_clusters_that_are_reported(backend: str) -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).repeat(20, 1)
    fit = fit_kmeans(rows, 5, seed=0, backend=backend)
    assert fit.empty == int((fit.sizes == 0).sum()) >= 2
    assert fit.inertia == pytest.approx(0.0, abs=1e-5)
    assert fit.centroids.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_as_many_clusters_as_rows(backend: str) -> None:
    rows = blobs(rows=7)
    fit = fit_kmeans(rows, 7, seed=0, backend=backend)
    assert fit.inertia == pytest.approx(0.0, abs=1e-6)
    assert fit.sizes.tolist() == [1] * 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    rows = blobs(rows=300).to(dtype)
    fit = fit_kmeans(rows, 3, seed=0, backend="torch")
    same = fit_kmeans(rows.float(), 3, seed=0, backend="torch")
    assert fit.centroids.dtype == torch.float32
    assert torch.equal(fit.centroids, same.centroids)


def test_neither_autocast_nor_low_precision_products_change_the_result() -> None:
    rows = blobs(spread=4.0).requires_grad_()
    plain = fit_kmeans(rows, 6, seed=0, backend="torch")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = fit_kmeans(rows, 6, seed=0, backend="torch")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(plain.centroids, mixed.centroids)
    assert not plain.centroids.requires_grad


def test_rows_may_come_in_any_memory_layout() -> None:
    rows = blobs()
    strided = rows.T.contiguous().T
    for backend in BACKENDS:
        a, b = (fit_kmeans(x, 6, seed=0, backend=backend) for x in (rows, strided))
        torch.testing.assert_close(a.centroids, b.centroids)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = blobs(spread=4.0)
    whole = fit_kmeans(rows, 6, seed=0, backend="torch")
    monkeypatch.setattr(lloyd_file, "_ROWS_AT_ONCE", 77)
    parts = fit_kmeans(rows, 6, seed=0, backend="torch")
    torch.testing.assert_close(whole.centroids, parts.centroids)
    assert torch.equal(whole.sizes, parts.sizes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"clusters": 1}, "ask for 2 or more"),
        ({"clusters": 51}, "collect at least 51 rows"),
        ({"rows": torch.zeros(50, 3, dtype=torch.int64)}, r"convert them with \.float"),
        ({"rows": torch.zeros(50, 0)}, "flatten feature maps"),
        ({"rows": torch.randn(50, 3).index_fill(0, torch.tensor([4, 9]), float("nan"))}, "2 of 50 rows"),
        ({"rows": torch.randn(50, 3).index_fill(0, torch.tensor([7]), float("inf"))}, "1 of 50 rows"),
        ({"rows": torch.randn(50, 3) * 1e30}, "overflows float32"),
        ({"initial": torch.randn(4, 2)}, r"of the shape \(4, 3\)"),
        ({"initial": torch.randn(5, 3)}, r"of the shape \(4, 3\)"),
        ({"initial": torch.full((4, 3), float("nan"))}, "start without initial centroids"),
        ({"initial": torch.randn(4, 3), "restarts": 2}, "restarts=1 for a warm start"),
        ({"iterations": 0}, "pass 1 or more"),
        ({"restarts": 0}, "pass 1 or more"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_be_clustered_is_refused(
    backend: str, change: dict[str, object], text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = {"rows": torch.randn(50, 3), "clusters": 4, "seed": 0, "backend": backend} | change
    with pytest.raises(CodebookError, match=text):
        fit_kmeans(arguments.pop("rows"), arguments.pop("clusters"), **arguments)
    assert capfd.readouterr() == ("", "")


def test_faiss_says_nothing_on_its_own(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fit_kmeans(torch.randn(30, 3), 25, seed=0, backend="faiss-cpu")  # 39 rows a cluster are asked for by default
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_faiss_keeps_the_thread_count_of_others_and_uses_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = importlib.import_module("faiss")
    seen: list[int] = []
    real = faiss.omp_set_num_threads
    monkeypatch.setattr(faiss, "omp_set_num_threads", lambda n: (seen.append(n), real(n)))
    before = faiss.omp_get_max_threads()
    fit_kmeans(blobs(rows=100), 3, seed=0, backend="faiss-cpu")
    monkeypatch.setattr(sys, "platform", "darwin")
    fit_kmeans(blobs(rows=100), 3, seed=0, backend="faiss-cpu")
    assert seen == [torch.get_num_threads(), before, 1, before]
    assert faiss.omp_get_max_threads() == before


def test_the_gpu_path_puts_the_index_on_the_gpu_and_the_result_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # No GPU build here: the CPU build, dressed up as one, shows that the calls fit together.
    faiss = importlib.import_module("faiss")
    calls: list[tuple[object, int]] = []
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(
        faiss,
        "index_cpu_to_gpu",
        lambda resources, gpu, index: (calls.append((resources, gpu)), index)[1],
        raising=False,
    )
    fit = fit_kmeans(blobs(), 6, seed=0)
    assert fit.backend == "faiss-gpu"
    assert [gpu for _, gpu in calls] == [0]
    assert torch.equal(fit.centroids, fit_kmeans(blobs(), 6, seed=0, backend="faiss-cpu").centroids)


def gpu_build(gpus: int) -> types.ModuleType:
    faiss = types.ModuleType("faiss")
    faiss.StandardGpuResources = object  # type: ignore[attr-defined]
    faiss.get_num_gpus = lambda: gpus  # type: ignore[attr-defined]
    return faiss


CPU_BUILD = types.ModuleType("faiss")
CPU_BUILD.get_num_gpus = lambda: 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("faiss", "device", "expected"),
    [
        (gpu_build(1), "cpu", "faiss-gpu"),
        (gpu_build(1), "cuda", "faiss-gpu"),
        (gpu_build(0), "cpu", "faiss-cpu"),
        (gpu_build(0), "cuda", "torch"),
        (CPU_BUILD, "cpu", "faiss-cpu"),
        (CPU_BUILD, "cuda", "torch"),
        (None, "cpu", "torch"),
        (None, "cuda", "torch"),
    ],
)
def test_auto_takes_the_fastest_that_is_there(
    monkeypatch: pytest.MonkeyPatch, faiss: types.ModuleType | None, device: str, expected: str
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", faiss)  # None makes the import fail
    assert kmeans_file._choose_backend("auto", torch.device(device)) == expected


@pytest.mark.parametrize(
    ("faiss", "backend", "text"),
    [
        (None, "faiss-cpu", "install the package faiss-cpu"),
        (None, "faiss-gpu", r"not installed.*sisug\[gpu\]"),
        (CPU_BUILD, "faiss-gpu", r"without GPU support.*faiss-gpu"),
        (gpu_build(0), "faiss-gpu", "sees no GPU"),
    ],
)
def test_a_backend_that_is_not_there_is_refused_with_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch, faiss: types.ModuleType | None, backend: str, text: str
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    with pytest.raises(CodebookError, match=text):
        fit_kmeans(torch.randn(50, 3), 4, seed=0, backend=backend)


def test_without_faiss_the_torch_backend_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert fit_kmeans(blobs(), 6, seed=0).backend == "torch"


def test_faiss_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, sisug.proxies.kmeans; sys.exit(any(m in sys.modules for m in ('faiss', 'scipy', 'lightning')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_match_labels_finds_the_permutation_again() -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(9, 4, generator=generator)
    shuffle = torch.randperm(9, generator=generator)
    new = old[shuffle] + 0.01 * torch.randn(9, 4, generator=generator)
    order = match_labels(old, new)
    assert torch.equal(shuffle[order], torch.arange(9))
    assert (new[order] - old).abs().max() < 0.1


def test_match_labels_is_the_best_of_all_pairings() -> None:
    generator = torch.Generator().manual_seed(1)
    old, new = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    costs = {p: float((new[list(p)] - old).square().sum()) for p in itertools.permutations(range(5))}
    assert match_labels(old, new).tolist() == list(min(costs, key=costs.__getitem__))


def test_labels_keep_their_identity_over_a_cold_restart() -> None:
    rows = blobs(spread=0.3)
    old = fit_kmeans(rows, 6, seed=0, restarts=4).centroids
    new = fit_kmeans(rows, 6, seed=77, restarts=4).centroids
    before = torch.cdist(rows, old).argmin(dim=1)
    after = torch.cdist(rows, new[match_labels(old, new)]).argmin(dim=1)
    assert (torch.cdist(rows, new).argmin(dim=1) != before).float().mean() > 0.1  # or the test proves nothing
    assert (after == before).float().mean() > 0.99


def test_match_labels_refuses_what_it_cannot_pair() -> None:
    with pytest.raises(CodebookError, match="fit the codebook afresh"):
        match_labels(torch.randn(4, 3), torch.full((4, 3), float("nan")))
    with pytest.raises(CodebookError, match="number of clusters and the channels of the old"):
        match_labels(torch.randn(4, 3), torch.randn(5, 3))


@pytest.mark.gpu
def test_the_torch_backend_on_a_gpu_agrees_with_the_cpu_and_repeats_itself() -> None:
    rows = blobs(rows=20000, spread=4.0)
    on_cpu = fit_kmeans(rows, 6, seed=0, backend="torch")
    on_gpu = fit_kmeans(rows.cuda(), 6, seed=0, backend="torch")
    again = fit_kmeans(rows.cuda(), 6, seed=0, backend="torch")
    assert on_gpu.centroids.is_cuda
    assert torch.equal(on_gpu.centroids, again.centroids)
    torch.testing.assert_close(on_gpu.centroids.cpu(), on_cpu.centroids, rtol=1e-3, atol=1e-3)
