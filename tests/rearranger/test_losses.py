"""The rearranger's losses against numpy, scipy, scikit-learn and closed forms, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import log_loss, pairwise_distances

from sisug.generators import Features
from sisug.proxies import Codebook
from sisug.rearranger.losses import (
    cluster_means,
    mask_loss,
    perceptual_loss,
    reconstruction_loss,
    style_loss,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def fitted(clusters: int = 5, channels: int = 6, spread: float = 2.5) -> Codebook:
    codebook = Codebook(clusters, channels, "standard")
    codebook.update(torch.randn(clusters, channels), spread, torch.ones(clusters), 0)
    return codebook


# --- reconstruction ------------------------------------------------------------------------------------------------


def test_reconstruction_is_the_absolute_error_in_units_of_each_channels_deviation():
    source = Features(torch.randn(4, 6, 8, 8) * torch.logspace(0, 2, 6)[:, None, None], torch.randn(4, 3, 8, 8))
    result = Features(source.map + torch.randn(4, 6, 8, 8), source.rgb + torch.randn(4, 3, 8, 8))
    x, y = source.map.double().numpy(), result.map.double().numpy()
    deviation = x.std(axis=(0, 2, 3), ddof=1, keepdims=True)
    expected = np.abs((y - x) / deviation).mean() + np.abs((result.rgb - source.rgb).double().numpy()).mean()
    assert float(reconstruction_loss(result, source)) == pytest.approx(expected, rel=2e-3)  # the deviation's floor


def test_reconstruction_is_zero_only_for_the_source_and_sees_map_and_colours():
    source = Features(torch.randn(2, 6, 8, 8), torch.randn(2, 3, 8, 8))
    assert float(reconstruction_loss(source, source)) == 0
    assert float(reconstruction_loss(source._replace(map=source.map + 1), source)) > 0.5
    assert float(reconstruction_loss(source._replace(rgb=source.rgb + 1), source)) == pytest.approx(1)


def test_a_channel_that_never_varies_does_not_make_the_reconstruction_infinite():
    source = Features(torch.ones(2, 6, 8, 8), torch.zeros(2, 3, 8, 8))
    assert math.isfinite(float(reconstruction_loss(source._replace(map=source.map + 1e-3), source)))


# --- perceptual ----------------------------------------------------------------------------------------------------


def test_perceptual_is_the_squared_distance_of_directions_averaged_over_cells_and_levels():
    a, b = ([torch.randn(3, 5, 8, 8), torch.randn(3, 7, 4, 4)] for _ in range(2))
    levels = []
    for x, y in zip(a, b, strict=True):
        x, y = (t.permute(0, 2, 3, 1).reshape(-1, t.shape[1]).double().numpy() for t in (x, y))
        cosine = (x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
        levels.append((2 - 2 * cosine).mean())  # |u - v|^2 of unit vectors
    assert float(perceptual_loss(a, b)) == pytest.approx(np.mean(levels), rel=1e-5)
    assert float(perceptual_loss(a, [3 * x for x in a])) == pytest.approx(0, abs=1e-12)


def test_perceptual_needs_equal_levels():
    with pytest.raises(ValueError, match="zip"):
        perceptual_loss([torch.randn(1, 2, 4, 4)], [])


# --- mask ----------------------------------------------------------------------------------------------------------


def test_mask_loss_is_the_log_loss_of_the_soft_assignment():
    codebook, features = fitted(), torch.randn(2, 6, 4, 4)
    target = torch.randint(0, 5, (2, 4, 4))
    rows = features.permute(0, 2, 3, 1).reshape(-1, 6).double().numpy()
    distances = pairwise_distances(rows, codebook.centroids.double().numpy(), metric="sqeuclidean")
    log_p = log_softmax(-distances / (0.3 * 2.5), axis=1)
    expected = log_loss(target.flatten().numpy(), np.exp(log_p), labels=range(5))
    assert float(mask_loss(codebook, features, target, 0.3)) == pytest.approx(expected, rel=1e-4)


def test_mask_loss_is_least_where_features_sit_on_the_targets_centroids():
    codebook = fitted()
    target = torch.randint(0, 5, (2, 4, 4))
    features = codebook.centroids[target].permute(0, 3, 1, 2)
    assert torch.equal(codebook.assign(features), target)
    right, wrong = mask_loss(codebook, features, target, 0.2), mask_loss(codebook, features, (target + 1) % 5, 0.2)
    assert float(right) < 0.1 < float(wrong)


def test_gradient_of_the_mask_loss_moves_features_to_the_targets_mask():
    codebook = fitted()
    target = torch.randint(0, 5, (2, 4, 4))
    features = torch.randn(2, 6, 4, 4, requires_grad=True)
    optimizer = torch.optim.Adam([features], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        mask_loss(codebook, features, target, 0.2).backward()
        optimizer.step()
    assert torch.equal(codebook.assign(features), target)
    assert codebook.centroids.grad is None


# --- style ---------------------------------------------------------------------------------------------------------


def test_cluster_means_equal_numpy_and_absent_labels_weigh_nothing():
    values, mask = torch.randn(2, 3, 4, 4), torch.randint(0, 4, (2, 4, 4))
    mask[1][mask[1] == 3] = 0
    means, share = cluster_means(values, mask, 5)
    for i in range(2):
        for k in range(5):
            members = values[i].numpy()[:, mask[i].numpy() == k]
            assert float(share[i, k]) == pytest.approx(members.shape[1] / 16)
            expected = members.mean(axis=1) if members.shape[1] else np.zeros(3)
            np.testing.assert_allclose(means[i, k].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(share.sum(dim=1), torch.ones(2))


def test_style_is_zero_when_parts_keep_their_colours_whatever_the_layout():
    colours = torch.randn(1, 4, 3)  # of four parts
    masks = torch.randint(0, 4, (2, 1, 8, 8))
    source, result = (colours[0][mask].permute(0, 3, 1, 2) for mask in masks)
    assert not torch.equal(masks[0], masks[1])
    assert float(style_loss(result, masks[1], source, masks[0], 4)) == pytest.approx(0, abs=1e-6)
    assert float(style_loss(result + 1, masks[1], source, masks[0], 4)) == pytest.approx(1, rel=1e-5)


def test_style_by_hand():
    source_mask = torch.tensor([[[0, 0], [1, 2]]])
    result_mask = torch.tensor([[[0, 1], [1, 3]]])
    source = torch.tensor([[[[1.0, 3.0], [5.0, 9.0]], [[0.0, 0.0], [2.0, 9.0]]]])
    result = torch.tensor([[[[4.0, 6.0], [8.0, 7.0]], [[1.0, 2.0], [6.0, 7.0]]]])
    # Label 0: means (2, 0) and (4, 1), difference 1.5, in common 1/4. Label 1: (5, 2) and (7, 4), 2, 1/4.
    # Labels 2 and 3 are in one mask only and count nothing.
    expected = (0.25 * 1.5 + 0.25 * 2) / 0.5
    assert float(style_loss(result, result_mask, source, source_mask, 4)) == pytest.approx(expected)


def test_style_without_a_part_in_common_is_zero():
    values = torch.randn(1, 3, 4, 4)
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert float(style_loss(values, mask, values, mask + 1, 2)) == 0


# --- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reconstruction", "perceptual", "style"])
def test_gradients_equal_finite_differences(name: str) -> None:
    source = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    result = (source + torch.randn_like(source)).requires_grad_(True)
    colours = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    masks = torch.randint(0, 3, (2, 2, 3, 3))
    losses = {
        "reconstruction": lambda x: reconstruction_loss(Features(x, colours), Features(source, colours)),
        "style": lambda x: style_loss(x, masks[0], source, masks[1], 3),
    }
    if name == "perceptual":  # in float32 by itself
        x = result.detach().float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(perceptual_loss([x], [source.float()]), x)
        direction = torch.randn_like(x)
        step = 1e-2
        with torch.no_grad():
            ahead, behind = (perceptual_loss([x + s * direction], [source.float()]) for s in (step, -step))
        assert float((gradient * direction).sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=2e-2)
        return
    assert torch.autograd.gradcheck(losses[name], (result,))
