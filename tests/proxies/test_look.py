"""Dividing the look out: covariances against numpy, and a case where the answer is known."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from sisug.generators import load_generator
from sisug.proxies.kmeans import fit_kmeans
from sisug.proxies.look import look_free_projection, mixed_styles, mixing_covariance, part_covariance


def test_mixing_covariance_is_the_pooled_covariance_within_groups():
    features = torch.randn(6, 3, 2, 2)
    expected = np.zeros((3, 3))
    for group in (0, 1):
        for y in range(2):
            for x in range(2):
                expected += np.cov(features[3 * group : 3 * group + 3, :, y, x].numpy().T) / 8
    np.testing.assert_allclose(mixing_covariance(features, 3).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_part_covariance_weighs_images_by_their_cells():
    rows, labels = torch.randn(5, 20, 3), torch.randint(0, 2, (5, 20))
    expected, total = np.zeros((3, 3)), 0
    for k in (0, 1):
        means = np.stack([rows[i][labels[i] == k].mean(dim=0).numpy() for i in range(5)])
        counts = np.array([(labels[i] == k).sum().item() for i in range(5)])
        kept = counts >= 4
        centre = np.average(means[kept], axis=0, weights=counts[kept])
        expected += ((means[kept] - centre) * counts[kept, None]).T @ (means[kept] - centre)
        total += counts[kept].sum()
    np.testing.assert_allclose(part_covariance(rows, labels, 2).numpy(), expected / total, rtol=1e-4, atol=1e-6)


def test_projection_whitens_the_look():
    x = torch.randn(4000, 4) @ torch.diag(torch.tensor([10.0, 1.0, 1.0, 0.1]))
    look = x.t() @ x / len(x)
    projection = look_free_projection(look)
    torch.testing.assert_close(projection, projection.t())
    ridged = look * 4 / look.trace() + 0.1 * torch.eye(4)
    torch.testing.assert_close(projection @ ridged @ projection, torch.eye(4), atol=1e-4, rtol=0)


def test_differences_of_parts_weigh_twice_as_much_as_style_mixing():
    """Of a variance of one on average each, 1 and 1 under mixing, 2 and 0 between parts; and a tenth of ridge."""
    projection = look_free_projection(3 * torch.eye(2), torch.diag(torch.tensor([5.0, 0.0])))
    expected = torch.diag(torch.tensor([1 + 2 * 2 + 0.1, 1 + 0.1]).rsqrt())
    torch.testing.assert_close(projection, expected, atol=1e-5, rtol=0)


def test_without_layered_styles_parts_alone_tell_the_look():
    projection = look_free_projection(None, torch.diag(torch.tensor([5.0, 0.0])))
    expected = torch.diag(torch.tensor([2 * 2 + 0.1, 0.1]).rsqrt())
    torch.testing.assert_close(projection, expected, atol=1e-5, rtol=0)


def test_clusters_become_parts_where_colour_dominates():
    """Two parts differ a little in one channel; a colour of each image moves the other channel a lot."""
    torch.manual_seed(0)
    parts = torch.randint(0, 2, (40, 50))
    colour = torch.randn(40, 1) * 3
    rows = torch.stack([parts * 2.0, colour.expand(-1, 50)], dim=2) + 0.2 * torch.randn(40, 50, 2)
    raw = fit_kmeans(rows.flatten(0, 1), 2, seed=0)
    # Style mixing leaves the parts where they are and changes the colour.
    mixed = torch.stack([parts[:10].repeat_interleave(4, 0) * 2.0, torch.randn(40, 1).expand(-1, 50) * 3], dim=1)
    mixing = mixing_covariance((mixed + 0.2 * torch.randn(40, 2, 50))[..., None], 4)
    free = rows @ look_free_projection(mixing)
    fit = fit_kmeans(free.flatten(0, 1), 2, seed=0)

    def agreement(x: torch.Tensor, centroids: torch.Tensor) -> float:
        return adjusted_rand_score(parts.flatten(), torch.cdist(x.flatten(0, 1), centroids).argmin(dim=1))

    assert agreement(rows, raw.centroids) < 0.1
    assert agreement(free, fit.centroids) > 0.9


def test_mixed_styles_share_the_coarse_layers_alone():
    generator = load_generator("avatars", 32)
    ws = mixed_styles(generator, torch.randn(3, 128), 4, torch.Generator().manual_seed(0)).reshape(3, 4, 10, 128)
    assert torch.equal(ws[:, :, :3], ws[:, :1, :3].expand(-1, 4, -1, -1)), "styles below 16 px are shared"
    assert (ws[:, 0, 3:] - ws[:, 1, 3:]).abs().amax(dim=2).min() > 1e-3, "those from 16 px on differ"
