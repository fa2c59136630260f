"""Tests of the look difference against scikit-image's colour space and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import deltaE_cie76, rgb2lab
from torch import Tensor

from sisug.errors import ConfigError, DataError
from sisug.metrics import LookDifference


def images(seed: int, batch: int = 3, size: int = 12) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def masks(seed: int, classes: int = 4, batch: int = 3, size: int = 12) -> Tensor:
    return torch.randint(classes, (batch, size, size), generator=torch.Generator().manual_seed(seed))


def by_skimage(first: Tensor, second: Tensor, first_masks: Tensor, second_masks: Tensor, least: int) -> float:
    scores = []
    for a, b, ma, mb in zip(first, second, first_masks.numpy(), second_masks.numpy(), strict=True):
        lab_a, lab_b = (rgb2lab((x.permute(1, 2, 0).numpy() + 1) / 2) for x in (a, b))
        differences = [
            deltaE_cie76(lab_a[ma == k].mean(axis=0), lab_b[mb == k].mean(axis=0))
            for k in set(ma.ravel()) & set(mb.ravel()) - {255}
            if min((ma == k).sum(), (mb == k).sum()) >= least
        ]
        if differences:
            scores.append(np.mean(differences))
    return float(np.mean(scores))


def test_it_equals_scikit_image() -> None:
    first, second, a, b = images(0), images(1), masks(2), masks(3)
    a[1][a[1] == 2] = 255  # class 2 is missing in one pair
    b[2, :, :] = 0
    b[2, 0, :5] = 3  # too few pixels of class 3
    score = LookDifference(4, min_pixels=6)
    score.update(first[:1], second[:1], a[:1], b[:1])
    score.update(first[1:], second[1:], a[1:], b[1:])
    expected = by_skimage(first, second, a, b, 6)
    assert float(score.compute()) == pytest.approx(expected, rel=1e-3)
    assert expected != pytest.approx(by_skimage(first, second, a, b, 1), rel=1e-3)


def test_black_against_white_is_100() -> None:
    black, white = -torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    mask = masks(0, 2, 2, 4) * 0
    score = LookDifference(2)
    score.update(black, white, mask, mask)
    assert float(score.compute()) == pytest.approx(100, abs=0.01)


def test_another_layout_of_the_same_colours_is_no_difference() -> None:
    palette = images(0, 1, 4)[0, :, 0].T  # 4 colours
    a, b = masks(1), masks(2)
    score = LookDifference(4)
    score.update(palette[a].permute(0, 3, 1, 2), palette[b].permute(0, 3, 1, 2), a, b)
    assert float(score.compute()) == pytest.approx(0, abs=1e-4)


def test_classes_count_alike_whatever_their_size() -> None:
    # Class 0 fills 90 % and is equal; class 1 differs from black to white: mean of 0 and 100.
    mask = torch.zeros(1, 10, 10, dtype=torch.int64)
    mask[:, 0] = 1
    first = -torch.ones(1, 3, 10, 10)
    second = first.clone()
    second[:, :, 0] = 1
    score = LookDifference(3)
    score.update(first, second, mask, mask)
    assert float(score.compute()) == pytest.approx(50, abs=0.01)


def test_pairs_without_a_common_class_are_left_out_and_counted() -> None:
    zeros = torch.zeros(1, 12, 12, dtype=torch.int64)
    score = LookDifference(4)
    score.update(images(0, 1), images(1, 1), zeros, zeros + 1)
    with pytest.raises(DataError, match="1 without a common class"):
        score.compute()
    score.update(images(0, 1), images(1, 1), zeros, zeros)
    assert float(score.compute()) == pytest.approx(by_skimage(images(0, 1), images(1, 1), zeros, zeros, 8), rel=1e-3)
    assert (int(score.pairs), int(score.skipped)) == (1, 1)


def test_halves_from_two_ranks_add_up() -> None:
    arguments = images(0, 4), images(1, 4), masks(2, batch=4), masks(3, batch=4)
    whole, first, second = (LookDifference(4) for _ in range(3))
    whole.update(*arguments)
    first.update(*(x[:1] for x in arguments))
    second.update(*(x[1:] for x in arguments))
    first.merge_state(second)
    assert float(first.compute()) == pytest.approx(float(whole.compute()), rel=1e-6)


def test_bad_input_is_refused() -> None:
    score = LookDifference(4)
    good = images(0), images(1), masks(2), masks(3)
    with pytest.raises(DataError, match="second masks hold the label 9"):
        score.update(*good[:3], torch.full_like(good[3], 9))
    with pytest.raises(DataError, match="second images hold NaN"):
        score.update(good[0], good[1] * float("nan"), *good[2:])
    with pytest.raises(DataError, match=r"first images \(one channel\) and their masks have the shapes"):
        score.update(*good[:2], good[2][:, ::2], good[3])
    with pytest.raises(DataError, match="images of a pair have the shapes"):
        score.update(good[0], good[1][:, :, ::2], *good[2:])
    with pytest.raises(ConfigError, match="pass 1 or more"):
        LookDifference(4, min_pixels=0)
