"""Tests of the segmentation score against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from torch import Tensor

from sisug.errors import ConfigError, DataError
from sisug.metrics import SegmentationScore


def masks(seed: int, classes: tuple[int, ...], shape: tuple[int, ...] = (6, 9, 7)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(classes)[torch.randint(len(classes), shape, generator=generator)]


def scored(prediction: Tensor, target: Tensor, num_classes: int, batch: int = 2, ignore: int = 255) -> object:
    score = SegmentationScore(num_classes, ignore)
    for p, t in zip(prediction.split(batch), target.split(batch), strict=True):
        score.update(p, t)
    return score.compute()


@pytest.mark.parametrize(
    ("predicted", "true", "present"),
    [
        ((0, 1, 2, 3, 4), (0, 1, 2, 3, 4), [0, 1, 2, 3, 4]),
        ((0, 1, 2), (0, 1, 2), [0, 1, 2]),  # 3 and 4 in neither: left out
        ((0, 1, 2, 3), (0, 1, 2), [0, 1, 2, 3]),  # 3 predicted only: counts 0
        ((0, 1), (0, 1, 4), [0, 1, 4]),  # 4 true only: counts 0
    ],
)
def test_it_equals_scikit_learn(predicted: tuple[int, ...], true: tuple[int, ...], present: list[int]) -> None:
    target = masks(1, true)
    agree = torch.rand(target.shape, generator=torch.Generator().manual_seed(2)) < 0.6
    prediction = torch.where(agree & (target < 4), target, masks(0, predicted))
    target[0, :3] = 255
    result = scored(prediction, target, 5)
    p, t = (x[target != 255].numpy() for x in (prediction, target))
    assert sorted(set(p) | set(t)) == present
    reference = jaccard_score(t, p, labels=present, average=None, zero_division=0)
    assert float(result.miou) == pytest.approx(reference.mean(), abs=1e-6)
    assert float(result.accuracy) == pytest.approx(accuracy_score(t, p), abs=1e-6)
    np.testing.assert_allclose(result.iou[present].numpy(), reference, atol=1e-6)
    assert result.iou.isnan().sum() == 5 - len(present)
    assert result.confusion.tolist() == confusion_matrix(t, p, labels=range(5)).tolist()


def test_one_confusion_matrix_over_the_data_set_whatever_the_batches() -> None:
    prediction, target = masks(0, (0, 1, 2)), masks(1, (0, 1, 2))
    target[0] = 0  # images differ in their classes, so that a mean over images would be another number
    results = [scored(prediction, target, 3, batch) for batch in (1, 2, 6)]
    assert len({float(r.miou) for r in results}) == 1
    per_image = np.mean([float(scored(p[None], t[None], 3).miou) for p, t in zip(prediction, target, strict=True)])
    assert abs(per_image - float(results[0].miou)) > 1e-3


def test_halves_from_two_ranks_add_up() -> None:
    prediction, target = masks(0, (0, 1, 2)), masks(1, (0, 1, 2))
    ranks = [SegmentationScore(3) for _ in range(2)]
    for rank, score in enumerate(ranks):
        score.update(prediction[rank::2], target[rank::2])
    ranks[0].merge_state(ranks[1])
    assert torch.equal(ranks[0].compute().iou, scored(prediction, target, 3).iou)


def test_a_perfect_and_a_hopeless_prediction() -> None:
    target = masks(0, (0, 1, 2))
    assert float(scored(target, target, 3).miou) == 1
    assert float(scored((target + 1) % 3, target, 3).miou) == 0


def test_a_fully_ignored_batch_changes_nothing() -> None:
    score = SegmentationScore(3)
    target = masks(0, (0, 1, 2))
    score.update(target, target)
    score.update(target, torch.full_like(target, 255))
    assert int(score.compute().confusion.sum()) == target.numel()


def test_more_than_255_clusters_need_another_ignore_value() -> None:
    with pytest.raises(ConfigError, match="for example -1"):
        SegmentationScore(300)
    target = masks(0, (0, 255, 299, -1))
    result = scored(target.clamp_min(0), target, 300, ignore=-1)
    assert float(result.miou) == 1
    assert int(result.confusion.sum()) == int((target >= 0).sum())


def test_bad_masks_are_refused() -> None:
    target = masks(0, (0, 1, 2))
    score = SegmentationScore(3)
    with pytest.raises(DataError, match="target masks hold the label 7"):
        score.update(target, torch.full_like(target, 7))
    with pytest.raises(DataError, match="predicted masks hold the label -1"):
        score.update(torch.full_like(target, -1), target)
    with pytest.raises(DataError, match="must name a class"):
        score.update(torch.full_like(target, 255), target)
    with pytest.raises(DataError, match="resize one to the other"):
        score.update(target, target[:, ::2])
    score.update(target, torch.full_like(target, 255))
    with pytest.raises(DataError, match="before compute"):
        score.compute()
    with pytest.raises(ConfigError, match="pass 2 or more"):
        SegmentationScore(1)
