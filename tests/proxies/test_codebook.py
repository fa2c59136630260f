"""The codebook's assignment against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import pairwise_distances

from sisug.errors import CodebookError
from sisug.proxies import Codebook
from sisug.proxies.palette import colour_proxy_masks, proxy_palette


def fitted(clusters: int = 5, channels: int = 6, normalisation: str = "standard") -> Codebook:
    codebook = Codebook(clusters, channels, normalisation)  # type: ignore[arg-type]
    codebook.measure(torch.randn(channels), torch.rand(channels) * 5 + 5)
    codebook.update(torch.randn(clusters, channels), 2.5, torch.full((clusters,), 10.0), 0)
    return codebook


@pytest.mark.parametrize("normalisation", ["standard", "instance"])
def test_distances_and_labels_equal_scikit_learn(normalisation):
    codebook, x = fitted(normalisation=normalisation), torch.randn(2, 6, 4, 4) * 3 + 1
    rows = codebook.normalise(x).permute(0, 2, 3, 1).reshape(-1, 6).numpy()
    expected = pairwise_distances(rows, codebook.centroids.numpy(), metric="sqeuclidean")
    got = codebook.distances(x).permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(codebook.assign(x).flatten().numpy(), expected.argmin(axis=1))


def test_standard_normalisation_uses_moments_of_the_data():
    x = torch.randn(8, 3, 16, 16) * torch.tensor([1.0, 5.0, 0.2])[:, None, None] + 4
    codebook = Codebook(2, 3, "standard")
    codebook.measure(x.mean(dim=(0, 2, 3)), x.square().mean(dim=(0, 2, 3)))
    y = codebook.normalise(x)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std(dim=(0, 2, 3), unbiased=False), torch.ones(3), atol=1e-3, rtol=0)


def test_instance_normalisation_ignores_scale_and_shift_of_a_sample():
    x = torch.randn(2, 6, 8, 8)
    gain, shift = torch.rand(2, 6, 1, 1) + 0.5, torch.randn(2, 6, 1, 1)
    codebook = fitted(normalisation="instance")
    assert torch.equal(codebook.assign(x), codebook.assign(x * gain + shift))


def test_soft_assignment_is_a_softmax_of_distances():
    codebook, x = fitted(), torch.randn(1, 6, 3, 3)
    d = codebook.distances(x)
    expected = torch.exp(-d / (0.5 * 2.5))
    expected = expected / expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(codebook.log_probabilities(x, 0.5).exp(), expected)
    assert torch.equal(codebook.log_probabilities(x, 1e-3).argmax(dim=1), codebook.assign(x))


def test_labels_do_not_depend_on_autocast():
    codebook, x = fitted(25, 32), torch.randn(4, 32, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        cast = codebook.assign(x)
    assert torch.equal(cast, codebook.assign(x))


def test_update_writes_in_place_so_that_ddp_and_checkpoints_see_it():
    codebook = fitted()
    before = {name: buffer.data_ptr() for name, buffer in codebook.named_buffers()}
    codebook.update(torch.randn(5, 6), 1.0, torch.ones(5), 123)
    assert {name: buffer.data_ptr() for name, buffer in codebook.named_buffers()} == before
    assert int(codebook.fitted_at) == 123


@pytest.mark.parametrize("clusters", [1, 255])
def test_impossible_numbers_of_clusters(clusters):
    with pytest.raises(CodebookError, match="2 to 254"):
        Codebook(clusters, 4)


def test_palette_tells_clusters_apart():
    colours = proxy_palette(100)
    assert len({tuple(c.tolist()) for c in colours[:100]}) == 100
    assert colours[255].tolist() == [0, 0, 0]
    assert torch.equal(proxy_palette(10)[:10], colours[:10])
    picture = colour_proxy_masks(torch.tensor([[[0, 1], [2, 255]]]), 3, 4)
    assert torch.equal(picture[0, :, 1, 3], colours[1])
    assert torch.equal(picture[0, :, 3, 3], colours[255])
