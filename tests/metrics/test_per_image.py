"""Tests of the per-image segmentation score against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor

from sisug.errors import ConfigError, DataError
from sisug.metrics import PerImageResult, PerImageSegmentationScore, SegmentationScore


def masks(seed: int, count: int = 6, classes: int = 4) -> Tensor:
    """Every image shows another choice of classes; class 4 of 5 never occurs."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randint(1 + i % classes, (9, 7), generator=generator) for i in range(count)]
    return torch.stack(images)


def noisy(target: Tensor, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    agree = torch.rand(target.shape, generator=generator) < 0.6
    return torch.where(agree, target, torch.randint(3, target.shape, generator=generator))


def scored(prediction: Tensor, target: Tensor, batch: int = 2, **options: int | None) -> PerImageResult:
    score = PerImageSegmentationScore(5, **options)
    for p, t in zip(prediction.split(batch), target.split(batch), strict=True):
        score.update(p, t)
    return score.compute()


@pytest.mark.parametrize("background", [0, 2, None])
def test_it_equals_scikit_learn_image_by_image(background: int | None) -> None:
    target = masks(0)
    prediction = noisy(target)
    target[0, :3] = 255
    result = scored(prediction, target, background=background)
    by_class: dict[int, list[float]] = {}
    accuracies = []
    for p, t in zip(prediction.numpy(), target.numpy(), strict=True):
        p, t = p[t != 255], t[t != 255]
        present = sorted(set(p) | set(t))
        for k, iou in zip(present, jaccard_score(t, p, labels=present, average=None, zero_division=0), strict=True):
            by_class.setdefault(int(k), []).append(iou)
        accuracies.append((p == t).mean())
    means = {k: np.mean(values) for k, values in by_class.items()}
    assert float(result.miou) == pytest.approx(np.mean([v for k, v in means.items() if k != background]), abs=1e-6)
    for k in range(5):
        assert float(result.iou[k]) == pytest.approx(means.get(k, np.nan), abs=1e-6, nan_ok=True)
        assert int(result.occurrences[k]) == len(by_class.get(k, []))
    assert float(result.accuracy) == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert result.images == 6


def test_the_rules_on_a_case_by_hand() -> None:
    target = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 0]]])
    prediction = torch.tensor([[[0, 1, 1, 1]], [[0, 0, 0, 2]]])
    result = scored(prediction, target)
    # Class 1: 2 of 3 in the first image, absent from the second; class 2: predicted only, in the second.
    assert result.iou[1:3].tolist() == pytest.approx([2 / 3, 0])
    assert float(result.miou) == pytest.approx(1 / 3)
    # Background pixels predicted as class 1 do count against class 1, but the background's own score does not count.
    assert float(result.iou[0]) == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert float(result.accuracy) == pytest.approx((3 / 4 + 3 / 4) / 2)


def test_it_is_another_number_than_the_data_sets() -> None:
    target = masks(0)
    prediction = noisy(target)
    whole = SegmentationScore(5)
    whole.update(prediction, target)
    assert abs(float(whole.compute().miou) - float(scored(prediction, target, background=None).miou)) > 1e-3


def test_neither_batches_nor_order_nor_ranks_matter() -> None:
    target = masks(0)
    prediction = noisy(target)
    expected = scored(prediction, target)
    others = [scored(prediction, target, batch=1), scored(prediction.flip(0), target.flip(0), batch=6)]
    ranks = [PerImageSegmentationScore(5) for _ in range(2)]
    for rank, score in enumerate(ranks):
        score.update(prediction[rank::2], target[rank::2])
    ranks[0].merge_state(ranks[1])
    others.append(ranks[0].compute())
    for other in others:
        torch.testing.assert_close(other.iou, expected.iou, rtol=0, atol=1e-6, equal_nan=True)
        assert float(other.miou) == pytest.approx(float(expected.miou), abs=1e-6)
        assert other.images == expected.images


def test_bad_masks_are_refused() -> None:
    target = masks(0)
    score = PerImageSegmentationScore(5)
    with pytest.raises(DataError, match="target masks hold the label 7"):
        score.update(target, torch.full_like(target, 7))
    with pytest.raises(DataError, match="must name a class"):
        score.update(torch.full_like(target, 255), target)
    with pytest.raises(DataError, match=r"\(5, 9, 7\) and \(6, 9, 7\)"):
        score.update(target[1:], target)
    for nothing in (255, 0):  # background alone is nothing either
        score.update(torch.zeros_like(target), torch.full_like(target, nothing))
        with pytest.raises(DataError, match="before compute"):
            score.compute()
    with pytest.raises(ConfigError, match="pass one of them, or None"):
        PerImageSegmentationScore(5, background=5)
    with pytest.raises(ConfigError, match="pass 2 or more"):
        PerImageSegmentationScore(1)
