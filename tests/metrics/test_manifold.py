"""Tests of precision, recall, density and coverage against scikit-learn's nearest neighbours."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from metrics.feature_rows import Pool, pictures, rows
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from sisug.errors import ConfigError, DataError
from sisug.metrics import ManifoldResult, ManifoldScores, _feature_sets, _once


def scored(real: Tensor, generated: Tensor, batch: int = 64, **options: int) -> ManifoldResult:
    metric = ManifoldScores(Pool(), **options)
    for side, images in ((True, real), (False, generated)):
        for part in images.split(batch):
            metric.update(part, real=side)
    return metric.compute()


def by_sklearn(real: Tensor, generated: Tensor, k: int, k_density: int) -> dict[str, float]:
    x, y = real.double().numpy(), generated.double().numpy()

    def radii(points: np.ndarray, neighbours: int) -> np.ndarray:
        # Without an argument scikit-learn leaves each point itself out.
        return NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors()[0][:, -1]

    distances = pairwise_distances(x, y)
    within = distances < radii(x, k_density)[:, None]
    return {
        "precision": (distances <= radii(x, k)[:, None]).any(axis=0).mean(),
        "recall": (distances <= radii(y, k)[None]).any(axis=1).mean(),
        "density": within.sum(axis=0).mean() / k_density,
        "coverage": within.any(axis=1).mean(),
    }


@pytest.mark.parametrize(("count", "shift", "scale"), [(150, 0.0, 1.0), (150, 1.5, 0.6), (90, 0.0, 2.0)])
@pytest.mark.parametrize(("k", "k_density"), [(3, 5), (1, 2)])
def test_they_equal_scikit_learn(count: int, shift: float, scale: float, k: int, k_density: int) -> None:
    real, generated = rows(150, 0), rows(count, 1, shift, scale)
    result = scored(real, generated, neighbours=k, density_neighbours=k_density)
    expected = by_sklearn(real, generated, k, k_density)
    assert 0 < expected["precision"] < 1
    for name, value in expected.items():
        assert float(getattr(result, name)) == pytest.approx(value, abs=1e-6), name


def test_limits() -> None:
    real = rows(100, 0)
    far = scored(real, real + 1000)
    assert [float(x) for x in far] == [0, 0, 0, 0]
    same = scored(real, real)
    assert (float(same.precision), float(same.recall), float(same.coverage)) == (1, 1, 1)
    # One look only: realistic, without variety.
    collapsed = scored(real, real[:1] + 1e-3 * rows(100, 1))
    assert float(collapsed.precision) == 1
    assert float(collapsed.recall) < 0.1
    assert float(collapsed.coverage) < 0.2


def test_density_of_one_distribution_is_one() -> None:
    values = [float(scored(rows(200, seed), rows(200, seed + 50)).density) for seed in range(8)]
    assert np.mean(values) == pytest.approx(1, abs=4 * np.std(values) / np.sqrt(8))


def test_neither_batches_nor_order_nor_blocks_nor_ranks_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = pictures(60, 0), pictures(60, 1) * 0.9
    expected = scored(real, generated)
    others = [scored(real, generated, batch=1), scored(real.flip(0), generated.flip(0), batch=7)]
    ranks = [ManifoldScores(Pool()) for _ in range(2)]
    for rank, metric in enumerate(ranks):
        metric.update(real[rank::2], real=True)
        metric.update(generated[rank * 20 : 20 + rank * 40], real=False)
    ranks[0].merge_state(ranks[1])
    others.append(ranks[0].compute())
    monkeypatch.setattr(_feature_sets, "_ELEMENTS", 100)
    others.append(scored(real, generated))
    for other in others:
        torch.testing.assert_close(torch.stack(other), torch.stack(expected), rtol=0, atol=1e-6)


def test_unequal_counts_are_remarked(caplog: pytest.LogCaptureFixture) -> None:
    _once.SAID.clear()
    with caplog.at_level(logging.WARNING):
        scored(rows(20, 0), rows(20, 1))
        assert not caplog.records
        scored(rows(20, 0), rows(30, 1))
    assert "20 real and 30 generated images" in caplog.text


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"5 generated images for the ManifoldScores.*5 neighbours"):
        scored(rows(20, 0), rows(5, 1))
    with pytest.raises(DataError, match="0 real images"):
        scored(rows(0, 0), rows(5, 1))
    with pytest.raises(ConfigError, match="pass 1 or more"):
        ManifoldScores(Pool(), neighbours=0)
