"""Tests of the diversity of looks against scipy's pairwise distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metrics.feature_rows import Pool, pictures
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from sisug.errors import DataError
from sisug.metrics import FeatureDiversity, PerceptualDiversity, look_diversity
from sisug.metrics import diversity as diversity_file


class Gap(nn.Module):
    """The shape of LPIPS: two batches in, one distance a pair out."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)


def test_it_is_the_mean_over_pairs_then_masks() -> None:
    features, gap = FeatureDiversity(Pool()), PerceptualDiversity(Gap(), "gap")
    expected_features, expected_gap = [], []
    for seed, looks in ((0, 4), (1, 2), (2, 9)):
        images = pictures(looks, seed)
        features.update(images)
        gap.update(images)
        expected_features.append(pdist(Pool()(images).numpy()).mean())
        expected_gap.append(pdist(images.flatten(1).numpy(), "cityblock").mean() / images[0].numel())
    assert float(features.compute()) == pytest.approx(np.mean(expected_features), rel=1e-5)
    assert float(gap.compute()) == pytest.approx(np.mean(expected_gap), rel=1e-5)
    assert (features.name, gap.name) == ("euclidean-pool", "gap")


def test_looks_that_are_alike_have_none() -> None:
    metric = FeatureDiversity(Pool())
    metric.update(pictures(1, 0).expand(3, -1, -1, -1))
    assert float(metric.compute()) == 0


def test_neither_order_nor_ranks_nor_chunks_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PerceptualDiversity(Gap(), "gap")
    ranks = [PerceptualDiversity(Gap(), "gap") for _ in range(2)]
    for seed in range(3):
        whole.update(pictures(5, seed))
        ranks[seed % 2].update(pictures(5, seed).flip(0))
    monkeypatch.setattr(diversity_file, "_PAIRS", 3)
    chunked = PerceptualDiversity(Gap(), "gap")
    for seed in (2, 0, 1):
        chunked.update(pictures(5, seed))
    ranks[0].merge_state(ranks[1])
    for other in (ranks[0], chunked):
        assert float(other.compute()) == pytest.approx(float(whole.compute()), rel=1e-6)


def test_one_look_or_none_gives_no_number() -> None:
    metric = FeatureDiversity(Pool())
    with pytest.raises(DataError, match="1 looks of a mask"):
        metric.update(pictures(1, 0))
    with pytest.raises(DataError, match="looks hold NaN"):
        metric.update(pictures(3, 0) / 0 * 0)
    with pytest.raises(DataError, match="before compute"), pytest.warns(UserWarning, match="before the ``update``"):
        FeatureDiversity(Pool()).compute()


def test_without_lpips_the_extractor_steps_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity_file, "lpips_if_available", lambda: None)
    assert look_diversity(Pool()).name == "euclidean-pool"
    lpips = diversity_file.lpips_if_available
    assert lpips() is None
    monkeypatch.undo()
    from sisug.metrics import PerceptualDistance

    monkeypatch.setattr(diversity_file, "lpips_if_available", lambda: PerceptualDistance(Gap(), "lpips-alex"))
    metric = look_diversity(Pool())
    assert metric.name == "lpips-alex"
    metric.update(torch.stack([torch.full((3, 2, 2), 0.3), torch.zeros(3, 2, 2)]))
    assert float(metric.compute()) == pytest.approx(0.3)
