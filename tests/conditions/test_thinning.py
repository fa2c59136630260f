"""Thinning, shortening and thickening of label maps, against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.morphology import thin as reference_thin

from sisug.conditions.thinning import present, shorten, thicken, thin

IGNORE = 255


def blobs(seed: int, shape: tuple[int, int, int] = (3, 37, 52), classes: int = 4) -> torch.Tensor:
    """Random regions with ragged borders; some pixels are ignored."""
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    smooth = np.stack([ndimage.gaussian_filter(one, (0, 4, 4)) for one in noise])
    labels = smooth.argmax(axis=0)
    labels[smooth.max(axis=0) < np.quantile(smooth.max(axis=0), 0.1)] = IGNORE
    return torch.from_numpy(labels)


@pytest.mark.parametrize("seed", range(4))
def test_thinning_is_that_of_scikit_image_for_every_class(seed: int) -> None:
    labels = blobs(seed)
    thinned = thin(labels, IGNORE)
    assert (thinned == IGNORE).float().mean() > 0.5
    for sample in range(len(labels)):
        for number in range(4):
            expected = reference_thin((labels[sample] == number).numpy())
            assert np.array_equal((thinned[sample] == number).numpy(), expected)


def test_small_parts_stay() -> None:
    labels = torch.full((1, 9, 9), IGNORE)
    labels[0, 1:3, 1:3] = 0  # two by two pixels, which Zhang and Suen's algorithm deletes
    labels[0, 5, 5] = 1
    labels[0, 7:, 7:] = 2
    assert [int((thin(labels, IGNORE) == number).sum()) for number in range(3)] == [1, 1, 1]


def test_another_ignored_value() -> None:
    labels = blobs(0)
    other = labels.masked_fill(labels == IGNORE, 7)
    assert torch.equal(thin(other, 7), thin(labels, IGNORE).masked_fill(thin(labels, IGNORE) == IGNORE, 7))


def test_the_input_is_left_alone() -> None:
    labels = blobs(1)
    before = labels.clone()
    shorten(thin(labels, IGNORE), torch.tensor([1, 2, 3]), IGNORE)
    assert torch.equal(labels, before)


def test_shortening_takes_pixels_off_both_ends() -> None:
    lines = torch.full((2, 5, 20), IGNORE)
    lines[:, 2, 3:13] = 1
    short = shorten(lines, torch.tensor([0, 3]), IGNORE)
    assert torch.equal(short[0], lines[0])
    assert (short[1, 2] == 1).nonzero().flatten().tolist() == [6, 7, 8, 9]


def test_a_class_that_would_vanish_stays() -> None:
    lines = torch.full((1, 5, 20), IGNORE)
    lines[0, 2, 3:7] = 1
    lines[0, 4, 3:17] = 0
    short = shorten(lines, torch.tensor([4]), IGNORE)
    assert int((short == 1).sum()) == 4
    assert int((short == 0).sum()) == 6


def test_rings_have_no_ends() -> None:
    ring = torch.full((1, 8, 8), IGNORE)
    ring[0, 1, 2:6] = ring[0, 6, 2:6] = ring[0, 2:6, 1] = ring[0, 2:6, 6] = 0
    assert torch.equal(shorten(ring, torch.tensor([5]), IGNORE), ring)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 8])
def test_lines_get_the_width_asked_for(width: int) -> None:
    lines = torch.full((1, 21, 30), IGNORE)
    lines[0, 10] = 2
    within = torch.full((1, 21, 30), 2)
    assert (thicken(lines, within, torch.tensor([width]), IGNORE) == 2).sum(dim=1).eq(width).all()


def test_lines_grow_inside_their_class_only() -> None:
    labels = blobs(2)
    thick = thicken(thin(labels, IGNORE), labels, torch.tensor([1, 3, 6]), IGNORE)
    drawn = thick != IGNORE
    assert torch.equal(thick[drawn], labels[drawn])
    counts = drawn.flatten(1).sum(1) / (thin(labels, IGNORE) != IGNORE).flatten(1).sum(1)
    assert counts[0] == 1
    assert counts[0] < counts[1] < counts[2]


def test_present_lists_the_values_of_each_sample() -> None:
    labels = blobs(3)
    for sample, row in zip(labels, present(labels), strict=True):
        assert row.nonzero().flatten().tolist() == sample.unique().tolist()
