"""Tests of the kernel distance against scikit-learn's kernel, torchmetrics and the estimator's own definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metrics.feature_rows import Pool, pictures, rows
from sklearn.metrics.pairwise import polynomial_kernel
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from sisug.errors import DataError
from sisug.metrics import KernelDistance, _feature_sets


def distance(real: Tensor, generated: Tensor, batch: int = 64) -> float:
    metric = KernelDistance(Pool())
    for side, images in ((True, real), (False, generated)):
        for part in images.split(batch):
            metric.update(part, real=side)
    return float(metric.compute())


def by_sklearn(real: Tensor, generated: Tensor) -> float:
    x, y = real.double().numpy(), generated.double().numpy()

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return polynomial_kernel(a, b, degree=3, gamma=1 / a.shape[1], coef0=1)

    def without_diagonal(a: np.ndarray) -> float:
        table = kernel(a, a)
        return (table.sum() - np.trace(table)) / (len(a) * (len(a) - 1))

    return without_diagonal(x) + without_diagonal(y) - 2 * kernel(x, y).mean()


def test_it_is_the_unbiased_estimate_with_scikit_learns_kernel() -> None:
    real, generated = rows(90, 0), rows(70, 1, shift=0.3)
    expected = by_sklearn(real, generated)
    assert abs(expected) > 0.1
    assert distance(real, generated) == pytest.approx(expected, rel=1e-5)


def test_it_is_torchmetrics_value_of_one_subset_of_all() -> None:
    real, generated = rows(60, 0), rows(60, 1, shift=0.3)
    expected = float(poly_mmd(real.double(), generated.double()))
    assert distance(real, generated) == pytest.approx(expected, rel=1e-5)


def test_the_mean_over_random_subsets_tends_to_it() -> None:
    real, generated = rows(120, 0), rows(120, 1, shift=0.3)
    random = torch.Generator().manual_seed(0)
    values = [
        float(poly_mmd(*(x[torch.randperm(120, generator=random)[:60]].double() for x in (real, generated))))
        for _ in range(400)
    ]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - distance(real, generated)) < 4 * error
    assert error < 0.1 * abs(distance(real, generated))


def test_two_sets_of_one_distribution_lie_around_zero() -> None:
    values = [distance(rows(100, seed), rows(100, seed + 100)) for seed in range(30)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(30)
    assert min(values) < 0 < max(values)


def test_neither_batches_nor_order_nor_blocks_nor_ranks_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = pictures(80, 0), pictures(60, 1) * 0.5
    expected = distance(real, generated)
    assert distance(real, generated, batch=1) == pytest.approx(expected, rel=1e-6)
    assert distance(real.flip(0), generated.flip(0), batch=7) == pytest.approx(expected, rel=1e-6)
    ranks = [KernelDistance(Pool()) for _ in range(2)]
    for rank, metric in enumerate(ranks):
        metric.update(real[rank::2], real=True)
        metric.update(generated[rank * 20 : 20 + rank * 40], real=False)
    ranks[0].merge_state(ranks[1])
    assert float(ranks[0].compute()) == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(_feature_sets, "_ELEMENTS", 100)
    assert distance(real, generated) == pytest.approx(expected, rel=1e-6)


def test_real_features_can_be_kept() -> None:
    real, generated = rows(30, 0), rows(20, 1, shift=0.3)
    metric = KernelDistance(Pool(), keep_real=True)
    metric.update(real, real=True)
    metric.update(rows(5, 2), real=False)
    metric.reset()
    assert (metric.real_samples, metric.generated_samples) == (30, 0)
    metric.update(generated, real=False)
    assert float(metric.compute()) == pytest.approx(by_sklearn(real, generated), rel=1e-5)
    metric.forget_real()
    assert (metric.real_samples, metric.generated_samples) == (0, 0)
    other = KernelDistance(Pool())
    other.update(real, real=True)
    other.reset()
    assert other.real_samples == 0


@pytest.mark.parametrize(("real", "generated", "text"), [(1, 9, "1 real"), (9, 1, "1 gen"), (9, 0, "0 gen")])
def test_too_few_images_are_refused(real: int, generated: int, text: str) -> None:
    metric = KernelDistance(Pool())
    metric.update(pictures(real, 0), real=True)
    metric.update(pictures(generated, 0), real=False)
    with pytest.raises(DataError, match=f"{text}.*images for the KernelDistance.*before compute"):
        metric.compute()


def test_images_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="generated images hold NaN"):
        KernelDistance(Pool()).update(pictures(3, 0) / 0 * 0, real=False)
