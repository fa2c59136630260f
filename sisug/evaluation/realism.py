"""Realism of image sets (evaluation): the named extractor, its rows, and all scores between two sets of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sisug.common.cache_folder import cache_folder
from sisug.errors import ConfigError
from sisug.evaluation.held_out import HeldOut
from sisug.metrics import InceptionFeatures, NamedExtractor, RealismScores, VGGFeatures, fill_real_side
from sisug.segmentation.judges import FeatureJudge, JudgeProtocol
from sisug.types import Images

DOWNLOADED = "download"
"""In the place of a file with Inception's weights: torch-fidelity's own file, downloaded once."""

LEAST = 6
"""Images that the manifold scores need on a side."""


class JudgeRows(nn.Module):
    """A judge's features as an extractor that carries the judge's own name and fingerprint.

    Args:
        judge: gives the features.
    """

    def __init__(self, judge: FeatureJudge) -> None:
        super().__init__()
        self.judge = judge
        self.name, self.num_features, self.fingerprint = judge.name, judge.num_features, judge.fingerprint

    def forward(self, images: Images) -> Float[Tensor, "batch feature"]:
        """Rows of features.

        Args:
            images: in [-1, 1].
        """
        return self.judge.features(images)


def open_extractor(inception: str | Path | None, judge: JudgeProtocol | None) -> NamedExtractor:
    """What images are compared in.

    Args:
        inception: file of Inception's weights, or "download"; "vgg_hed" for a VGG-16 trunk from the package index
            instead; None for the judge's features.
        judge: used without Inception.

    Raises:
        ConfigError: the judge gives no features, or there is none.
        CheckpointError: Inception's weights cannot be used.
        RunError: they cannot be downloaded.
    """
    if inception is not None and str(inception) == VGGFeatures.name:
        return NamedExtractor(VGGFeatures())
    if inception is not None:
        return NamedExtractor(InceptionFeatures(None if str(inception) == DOWNLOADED else inception))
    if judge is None or not isinstance(judge, FeatureJudge):
        name = "no judge" if judge is None else f"the judge {judge.name}"
        raise ConfigError(
            f"{name} as the extractor of realism",
            "it gives masks only, no features",
            f'give Inception\'s weights: inception=FILE or "{DOWNLOADED}"; or inception="{VGGFeatures.name}"',
        )
    return NamedExtractor(JudgeRows(judge))


def is_official(extractor: NamedExtractor) -> bool:
    """Whether distances under this extractor are the published FID and KID."""
    network = extractor.network
    return isinstance(network, InceptionFeatures) and network.official and network.num_features == 2048


def heads(extractor: NamedExtractor) -> tuple[str, ...]:
    """Columns of `scores`, by name: FID and KID are those of Inception's published weights alone."""
    fid, kid = ("FID", "KID") if is_official(extractor) else ("Fréchet", "kernel distance")
    return (fid, kid, "precision", "recall", "density", "coverage", "variety")


FIGURES = ("frechet", "kernel", "precision", "recall", "density", "coverage", "variety")
"""Keys of `scores`, in the order of `heads`."""


def extractor_record(extractor: NamedExtractor) -> dict[str, Any]:
    """Name, hash, width and resize filter, for records."""
    resize = getattr(extractor.network, "resize", "the judge's own: bilinear with antialiasing to its training size")
    return {
        "name": extractor.name,
        "sha256": extractor.fingerprint,
        "features": extractor.num_features,
        "resize": resize,
    }


def rows_of(extractor: NamedExtractor, images: Iterable[Images]) -> Float[Tensor, "images feature"]:
    """Features of a set of images.

    Args:
        extractor: on the images' device.
        images: in [-1, 1], in batches.

    Raises:
        DataError: images that cannot be used: NaN, another range.
    """
    return torch.cat([extractor.rows(batch, "images").float() for batch in images])


def scores(
    extractor: NamedExtractor, real: Float[Tensor, "real feature"], generated: Float[Tensor, "generated feature"]
) -> dict[str, float]:
    """All of `FIGURES` of one set against another.

    Args:
        extractor: that gave the rows.
        real: rows of the set that is compared with.
        generated: rows of the other.

    Raises:
        DataError: too few rows.
    """
    metric = RealismScores(extractor).to(real.device)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return metric.compute()._asdict()


class AgainstData:
    """Scores against held-out images, whose rows are computed when they are first asked for, and kept on disk.

    Args:
        extractor: on the device.
        data: held-out images.
        count: how many of them, from the first.
        batch_size: images at a time.
        device: of the extractor.
    """

    def __init__(
        self, extractor: NamedExtractor, data: HeldOut, count: int, batch_size: int, device: torch.device
    ) -> None:
        self.extractor, self.data, self.count, self.batch_size = extractor, data, count, batch_size
        self._device = device
        self._metric: RealismScores | None = None

    def scores(self, generated: Float[Tensor, "generated feature"]) -> dict[str, float]:
        """All of `FIGURES` of a set against the held-out images.

        Args:
            generated: rows of the set.

        Raises:
            DataError: too few rows, or held-out images that cannot be read.
        """
        metric = self._filled()
        metric.update(generated, real=False)
        result = metric.compute()._asdict()
        metric.reset()
        return result

    def _filled(self) -> RealismScores:
        if self._metric is None:
            metric = RealismScores(self.extractor, keep_real=True).to(self._device)
            record: Mapping[str, Any] = self.data.record(0, self.count)
            fill_real_side(
                metric,
                (batch.images for batch in self.data.batches(0, self.count, self.batch_size)),
                data=self.data.fingerprint(0, self.count),
                protocol={"images": self.count, "resolution": self.data.resolution, "resize": record["resize"]},
                folder=cache_folder() / "statistics",
            )
            self._metric = metric
        return self._metric
