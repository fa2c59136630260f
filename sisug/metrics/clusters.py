"""How much of the true masks, and how little of the look, the codebook's clusters explain (choice of the codebook)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric

from sisug.errors import ConfigError, DataError
from sisug.metrics.guards import check_label_count, check_labels, check_same_shape, clean_images
from sisug.types import Images, Masks


class ClusterScores(NamedTuple):
    """Agreement of cluster labels with other labels of the same pixels.

    Args:
        accuracy: share of pixels whose label is their cluster's majority label (purity), 0 to 1.
        miou: mean intersection over union of the masks that the majority labels paint, over the labels that occur.
        nmi: mutual information over the arithmetic mean of the two entropies, 0 to 1; 0 where either is constant.
        majority: the label that each cluster stands for; -1 for a cluster that never occurred.
    """

    accuracy: Float[Tensor, ""]
    miou: Float[Tensor, ""]
    nmi: Float[Tensor, ""]
    majority: Int64[Tensor, " clusters"]


class ClusterAgreement(Metric):
    """Cluster labels against any other labels of the same pixels, over a whole data set.

    Against true classes, high scores say that the proxy masks hold the layout. Against labels of the look
    (`colour_bins`), a high `nmi` says that the masks carry the look as well, which the rearranger would then copy.
    Since colour depends on the class, ask for one class at a time too: set all other pixels to `ignore`.

    Args:
        num_clusters: entries of the codebook, 2 or more.
        num_labels: classes or bins, 2 or more.
        ignore: value of pixels of either map that do not count; neither a cluster nor a label.

    Raises:
        ConfigError: fewer than 2 of either, or the ignored value is one of them.
        DataError: maps of different shapes, numbers out of range, no pixel to score at `compute()`.

    Source: the codebook trial of this project (our choice); normalised mutual information as in scikit-learn.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    table: Tensor

    def __init__(self, num_clusters: int, num_labels: int, ignore: int = 255) -> None:
        super().__init__()
        check_label_count(num_clusters, ignore, "num_clusters")
        check_label_count(num_labels, ignore, "num_labels")
        self.num_clusters = num_clusters
        self.num_labels = num_labels
        self.ignore = ignore
        self.add_state("table", torch.zeros(num_clusters, num_labels, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, clusters: Masks, labels: Int64[Tensor, "_batch _height _width"]) -> None:
        """Add maps of one shape; enlarge the coarser one by nearest neighbour beforehand."""
        check_same_shape(clusters, labels, "cluster and label maps")
        check_labels(clusters, self.num_clusters, self.ignore, "cluster maps")
        check_labels(labels, self.num_labels, self.ignore, "label maps")
        counted = (clusters != self.ignore) & (labels != self.ignore)
        pairs = clusters[counted] * self.num_labels + labels[counted]
        self.table += torch.bincount(pairs, minlength=self.table.numel()).reshape(self.table.shape)

    def compute(self) -> ClusterScores:
        """Scores over everything seen."""
        pixels = self.table.sum()
        if not bool(pixels):
            raise DataError(
                "no pixel to score",
                f"no maps were given, or all pixels are {self.ignore} (ignored)",
                "update the score with maps that hold labels before compute()",
            )
        majority = self.table.argmax(dim=1)
        # Confusion matrix of the masks that the majority labels paint: rows are true labels.
        confusion = torch.zeros(self.num_labels, self.num_labels, dtype=torch.float64, device=self.table.device)
        confusion.index_add_(1, majority, self.table.T.double())
        right = confusion.diagonal()
        iou = right / (confusion.sum(dim=0) + confusion.sum(dim=1) - right)
        joint = self.table.double() / pixels
        rows, columns = joint.sum(dim=1), joint.sum(dim=0)
        information = _entropy(rows) + _entropy(columns) - _entropy(joint.flatten())
        mean_entropy = (_entropy(rows) + _entropy(columns)) / 2
        constant = (_entropy(rows) == 0) | (_entropy(columns) == 0)
        nmi = torch.where(constant, 0.0, (information / mean_entropy).clamp(0, 1))
        return ClusterScores(
            accuracy=(right.sum() / pixels).float(),
            miou=iou.nanmean().float(),
            nmi=nmi.float(),
            majority=torch.where(self.table.sum(dim=1) > 0, majority, -1),
        )


def cluster_purity(
    clusters: Masks, classes: Int64[Tensor, "_batch _height _width"], ignore: int = 255
) -> ClusterScores:
    """Scores of `ClusterAgreement` for maps that fit into memory at once; numbers of labels are read off the maps.

    Args:
        clusters: cluster of each pixel, 0 or more.
        classes: class (or bin of the look) of each pixel, 0 or more, or `ignore`.
        ignore: value of pixels that do not count; above all clusters and classes, or negative.

    Raises:
        ConfigError: a cluster or a class has the ignored number or a higher one.
        DataError: maps of different shapes, no pixel to score.
    """
    counts = []
    for labels in (clusters, classes):
        kept = labels[labels != ignore]
        counts.append(max(2, int(kept.max()) + 1 if kept.numel() else 0))
    agreement = ClusterAgreement(counts[0], counts[1], ignore)
    agreement.update(clusters, classes)
    return agreement.compute()


def colour_bins(images: Images, levels: int = 4) -> Masks:
    """Look of each pixel as a whole number: its RGB colour in `levels` equal steps a channel, levels ** 3 bins in all.

    Args:
        images: RGB in [-1, 1]; clamped.
        levels: steps a channel, 2 to 6 (so that every bin is below 255, the ignored value).

    Raises:
        ConfigError: too few or too many levels.
        DataError: images that cannot be used.

    Source: our choice: the plainest description of look that needs no network.
    """
    if not 2 <= levels <= 6:
        raise ConfigError(
            f"levels={levels}", "one level tells nothing, and more than 6 reach the ignored value 255", "pass 2 to 6"
        )
    steps = ((clean_images(images, "images") + 1) / 2 * levels).long().clamp_max(levels - 1)
    return (steps[:, 0] * levels + steps[:, 1]) * levels + steps[:, 2]


def _entropy(shares: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    return -torch.xlogy(shares, shares).sum()
