"""Tests of the scores from one pass: the same values as one by one, one extraction, one copy of the features."""

from __future__ import annotations

import pytest
from metrics.feature_rows import Pool, pictures

from sisug.errors import DataError
from sisug.metrics import FrechetDistance, KernelDistance, ManifoldScores, RealismScores


def test_values_are_those_of_each_score_alone() -> None:
    extractor = Pool()
    together = RealismScores(extractor)
    alone = [FrechetDistance(Pool()), KernelDistance(Pool()), ManifoldScores(Pool())]
    for side, images in ((True, pictures(40, 0)), (False, pictures(40, 1) * 0.7)):
        for part in images.split(10):
            together.update(part, real=side)
            for score in alone:
                score.update(part, real=side)
    assert extractor.calls == 8  # once a batch
    result = together.compute()
    assert result.frechet == float(alone[0].compute())
    assert result.kernel == float(alone[1].compute())
    assert result[2:6] == tuple(map(float, alone[2].compute()))
    assert result.variety == alone[0].variety < 1


def test_features_are_kept_once() -> None:
    scores = RealismScores(Pool())
    scores.update(pictures(4, 0), real=True)
    assert scores.kernel.real_features[0].data_ptr() == scores.manifold.real_features[0].data_ptr()
    scores.load_real_state(scores.real_state())
    assert scores.kernel.real_features[0].data_ptr() == scores.manifold.real_features[0].data_ptr()


def test_the_real_side_can_be_kept_and_forgotten() -> None:
    scores = RealismScores(Pool(), keep_real=True)
    for side in (True, False):
        scores.update(pictures(12, 0), real=side)
    scores.reset()
    assert (scores.real_samples, scores.generated_samples) == (12, 0)
    scores.forget_real()
    assert scores.real_samples == 0
    assert not scores.state_dict()
    assert not list(scores.parameters())


def test_too_few_images_give_no_number() -> None:
    scores = RealismScores(Pool())
    scores.update(pictures(12, 0), real=True)
    scores.update(pictures(5, 1), real=False)
    with pytest.raises(DataError, match="5 generated images"):
        scores.compute()
