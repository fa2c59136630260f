"""Tests of cluster agreement against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor

from sisug.errors import ConfigError, DataError
from sisug.metrics import ClusterAgreement, cluster_purity, colour_bins


def maps(seed: int = 0, shape: tuple[int, ...] = (4, 16, 16)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(4, shape, generator=generator)
    # Clusters 2k and 2k + 1 mostly lie in class k; a third of the pixels is noise.
    clusters = classes * 2 + torch.randint(2, shape, generator=generator)
    noise = torch.rand(shape, generator=generator) < 0.33
    return torch.where(noise, torch.randint(8, shape, generator=generator), clusters), classes


def test_it_equals_scikit_learn() -> None:
    clusters, classes = maps()
    classes[0, :4] = 255
    scores = cluster_purity(clusters, classes)
    c, t = (x[classes != 255].numpy() for x in (clusters, classes))
    table = contingency_matrix(t, c)
    painted = table.argmax(axis=0)[c]
    assert float(scores.accuracy) == pytest.approx(table.max(axis=0).sum() / table.sum(), abs=1e-6)
    assert float(scores.accuracy) == pytest.approx(np.mean(painted == t), abs=1e-6)
    assert float(scores.miou) == pytest.approx(jaccard_score(t, painted, average="macro"), abs=1e-6)
    assert float(scores.nmi) == pytest.approx(normalized_mutual_info_score(t, c), abs=1e-6)
    assert scores.majority.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_class_that_no_cluster_stands_for_counts_zero() -> None:
    classes = torch.tensor([[[0] * 6 + [1] * 4 + [2] * 2]])
    clusters = torch.tensor([[[0] * 6 + [1] * 6]])
    scores = cluster_purity(clusters, classes)
    assert float(scores.accuracy) == pytest.approx(10 / 12)
    assert float(scores.miou) == pytest.approx((1 + 4 / 6 + 0) / 3)


def test_limits() -> None:
    clusters, classes = maps()
    perfect = cluster_purity(classes, classes)
    assert (float(perfect.accuracy), float(perfect.miou)) == (1, 1)
    assert float(perfect.nmi) == pytest.approx(1)
    assert float(cluster_purity(torch.zeros_like(clusters), classes).nmi) == 0
    independent = torch.randint(8, (8, 64, 64), generator=torch.Generator().manual_seed(1))
    other = torch.randint(4, (8, 64, 64), generator=torch.Generator().manual_seed(2))
    assert float(cluster_purity(independent, other).nmi) < 1e-3


def test_the_majority_is_taken_over_the_data_set_and_batches_do_not_matter() -> None:
    clusters, classes = maps()
    agreement = ClusterAgreement(9, 4)
    for i in range(4):
        agreement.update(clusters[i : i + 1], classes[i : i + 1])
    scores, whole = agreement.compute(), cluster_purity(clusters, classes)
    assert float(scores.nmi) == pytest.approx(float(whole.nmi))
    assert torch.equal(scores.accuracy, whole.accuracy)
    assert scores.majority[:8].equal(whole.majority)
    assert scores.majority[8] == -1  # never occurred


def test_halves_from_two_ranks_add_up() -> None:
    clusters, classes = maps()
    ranks = [ClusterAgreement(8, 4) for _ in range(2)]
    for rank, agreement in enumerate(ranks):
        agreement.update(clusters[rank::2], classes[rank::2])
    ranks[0].merge_state(ranks[1])
    assert torch.equal(ranks[0].compute().miou, cluster_purity(clusters, classes).miou)


def test_colour_bins_number_the_corners_of_the_colour_cube() -> None:
    corners = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [1, -1, -1], [-1, -1, 2]]).T.reshape(1, 3, 1, 4)
    assert colour_bins(corners, 4).flatten().tolist() == [0, 63, 48, 3]
    ramp = torch.linspace(-1, 1, 101).expand(1, 3, 1, 101)
    assert colour_bins(ramp, 2).unique().tolist() == [0, 7]
    assert colour_bins(torch.rand(2, 3, 8, 8) * 2 - 1, 6).max() < 255


def test_clusters_made_of_colour_explain_the_look_and_not_the_class() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 32, 32, generator=generator) * 2 - 1
    classes = torch.randint(3, (4, 32, 32), generator=generator)
    by_colour = (images[:, 0] > 0).long() * 2 + (images[:, 1] > 0).long()
    look = cluster_purity(by_colour, colour_bins(images, 2)).nmi
    layout = cluster_purity(by_colour, classes).nmi
    assert float(look) > 0.75  # 2 of 3 bits: 2 * 2 / (2 + 3) = 0.8
    assert float(layout) < 0.01


def test_bad_input_is_refused() -> None:
    clusters, classes = maps()
    agreement = ClusterAgreement(8, 4)
    with pytest.raises(DataError, match="cluster maps hold the label 8"):
        agreement.update(clusters + 1, classes)
    with pytest.raises(DataError, match="label maps hold the label -2"):
        agreement.update(clusters, classes - 2)
    with pytest.raises(DataError, match="by nearest neighbour"):
        agreement.update(clusters, classes[:, ::2, ::2])
    with pytest.raises(DataError, match="no pixel to score"):
        cluster_purity(clusters, torch.full_like(classes, 255))
    with pytest.raises(ConfigError, match="for example -1"):
        cluster_purity(clusters + 300, classes)
    with pytest.raises(ConfigError, match="pass 2 to 6"):
        colour_bins(torch.zeros(1, 3, 2, 2), 7)
