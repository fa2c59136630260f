"""Which samples are picked to be labelled: the greedy choice against its definition, and what it finds in avatars."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from sisug.errors import CodebookError, ConfigError
from sisug.generators import GeneratorBackbone, load_generator
from sisug.proxies import Codebook
from sisug.segmentation.annotation import first_samples, fit_codebook, judged_samples, pick_samples
from sisug.segmentation.annotation.picking import RIDGE, least_explained, likeness
from sisug.segmentation.loading import load_judge


@pytest.fixture(scope="module")
def tiny(tiny_generator_file: Path) -> GeneratorBackbone:
    return load_generator(tiny_generator_file)


@pytest.fixture(scope="module")
def codebook(tiny: GeneratorBackbone) -> Codebook:
    return fit_codebook(tiny, clusters=6, samples=16)


def random_masks(seed: int) -> torch.Tensor:
    return torch.randint(3, (9, 4, 4), generator=torch.Generator().manual_seed(seed))


def test_likeness_is_the_covariance_of_one_hot_cells():
    masks = random_masks(0)
    shown = F.one_hot(masks, 3).flatten(1).double()
    centred = shown - shown.mean(dim=0)
    expected = centred @ centred.T / 16
    torch.testing.assert_close(likeness(masks, 3).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_each_further_pick_enlarges_the_log_determinant_most(seed):
    kernel = likeness(random_masks(seed), 3)
    ridge = RIDGE * float(kernel.diagonal().mean()) * torch.eye(9, dtype=torch.float64)
    full = kernel.double() + ridge
    chosen = least_explained(kernel, 5)
    for count in range(1, 5):
        before = chosen[:count]
        gains = {i: float(torch.logdet(full[[*before, i]][:, [*before, i]])) for i in range(9) if i not in before}
        assert gains[chosen[count]] == pytest.approx(max(gains.values()), abs=1e-5)


def test_no_sample_is_picked_twice_even_where_all_are_alike():
    assert sorted(least_explained(torch.zeros(4, 4), 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(4))
def test_the_first_pick_leaves_the_least_variance_to_all(seed):
    kernel = likeness(random_masks(seed), 3).double()
    ridge = RIDGE * kernel.diagonal().mean()
    left = [
        # Regression of all samples on one, as a Gaussian process with noise gives it.
        float((kernel - kernel[:, [i]] @ torch.linalg.inv(kernel[[i]][:, [i]] + ridge) @ kernel[[i]]).trace())
        for i in range(9)
    ]
    assert left[least_explained(kernel.float(), 1)[0]] == pytest.approx(min(left), abs=1e-5)


def test_twins_of_a_picked_sample_are_not_picked():
    masks = torch.zeros(6, 4, 4, dtype=torch.int64)
    masks[3], masks[5] = 1, 1
    masks[1, :2] = 2
    assert set(least_explained(likeness(masks, 3), 2)) in ({3, 1}, {5, 1})


def test_picks_are_candidates_of_the_seed_and_repeat_to_the_bit(tiny, codebook):
    torch.manual_seed(1)
    picks = pick_samples(tiny, codebook, 4, candidates=20)
    torch.manual_seed(2)
    assert torch.equal(picks, pick_samples(tiny, codebook, 4, candidates=20))
    assert torch.equal(picks[:2], pick_samples(tiny, codebook, 2, candidates=20)), "fewer picks begin the same way"
    candidates = first_samples(tiny, 20)
    assert all((candidates == pick).all(dim=1).any() for pick in picks)
    assert not torch.equal(picks, pick_samples(tiny, codebook, 4, candidates=20, seed=1))
    assert not torch.equal(picks, candidates[:4])


def test_first_samples_do_not_depend_on_their_number(tiny):
    assert torch.equal(first_samples(tiny, 2, seed=5), first_samples(tiny, 7, seed=5)[:2])
    assert not torch.equal(first_samples(tiny, 2, seed=5), first_samples(tiny, 2, seed=6))


def test_the_codebook_repeats_and_leaves_the_global_random_state(tiny, codebook):
    state = torch.get_rng_state()
    again = fit_codebook(tiny, clusters=6, samples=16)
    assert torch.equal(again.centroids, codebook.centroids)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "samples 0"),
        ({"count": 9, "candidates": 8}, "9 samples of 8 candidates"),
        ({"count": 1, "truncation": -0.1}, "truncation"),
        ({"count": 1, "seed": -1}, "seed -1"),
    ],
)
def test_numbers_out_of_range_are_refused(tiny, codebook, arguments, message):
    with pytest.raises(ConfigError, match=message):
        pick_samples(tiny, codebook, **arguments)


def test_codebooks_that_cannot_serve_are_refused(tiny):
    with pytest.raises(CodebookError, match="not fitted"):
        pick_samples(tiny, Codebook(6, tiny.feature_channels), 1)
    other = Codebook(6, 3)
    other.update(torch.randn(6, 3), 1.0, torch.ones(6), 0)
    with pytest.raises(CodebookError, match="3 channels"):
        pick_samples(tiny, other, 1)


def test_eight_picks_show_the_rare_parts_of_avatars():
    """A hat is in a quarter of all samples, a beard in a fifth, glasses in an eighth."""
    generator, judge = load_generator("avatars"), load_judge()
    codebook = fit_codebook(generator, samples=64)
    z = pick_samples(generator, codebook, 8, candidates=192)
    masks = judged_samples(generator, judge, z, 0.7).masks
    largest = torch.stack([judge.labels.histogram(mask) for mask in masks]).max(dim=0).values
    shown = {name for name, pixels in zip(judge.labels.classes, largest.tolist(), strict=True) if pixels >= 8}
    assert {"hat", "facial_hair", "accessories"} <= shown
