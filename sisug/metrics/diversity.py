"""How far apart the looks of one mask are: diversity (evaluation of both stages)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torchmetrics import Metric

from sisug.common.frozen_network import FrozenNetwork
from sisug.errors import DataError
from sisug.metrics.extractor import NamedExtractor
from sisug.metrics.guards import clean_images
from sisug.metrics.reconstruction import lpips_if_available
from sisug.types import Images

_PAIRS = 32
"""Pairs that a perceptual network compares at a time."""


class LookDiversity(Metric):
    """Mean distance between images that were made from one mask: the mean over its pairs, then over masks.

    `PerceptualDiversity` and `FeatureDiversity` say what the distance is; values compare under one name only, and
    with equal numbers of images a mask at best. A value alone cannot tell variety from broken images: state a
    realism score beside it.

    Args:
        name: of the distance.

    Raises:
        DataError: images that cannot be used; fewer than 2 of a mask; no mask at `compute()`.

    Source: J.-Y. Zhu et al., "Toward multimodal image-to-image translation" (2017), section 5.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    masks: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("masks", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, images: Images) -> None:
        """Add all looks of one mask, in [-1, 1]."""
        if len(images) < 2:
            raise DataError(
                f"{len(images)} looks of a mask", "their distance needs at least 2", "make more images from each mask"
            )
        images = clean_images(images, "looks")
        first, second = torch.triu_indices(len(images), len(images), offset=1, device=images.device)
        self.total += self._distances(images, first, second).mean(dtype=torch.float64)
        self.masks += 1

    def compute(self) -> Float[Tensor, ""]:
        """Mean over all masks seen."""
        if not bool(self.masks):
            raise DataError("no looks to compare", "no images were given", "update the metric before compute()")
        return (self.total / self.masks).float()

    def _distances(
        self, images: Images, first: Int64[Tensor, " pair"], second: Int64[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        """Distance of each pair, given by two numbers of images."""
        raise NotImplementedError


class PerceptualDiversity(LookDiversity):
    """`LookDiversity` under a network that compares two images, such as LPIPS.

    Args:
        network: two batches of images in [-1, 1] to one distance a pair; frozen, and no part of the state_dict.
        name: of the network, for example "lpips-alex".

    Raises:
        DataError: images that cannot be used; fewer than 2 of a mask; no mask at `compute()`.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__(name)
        self.network = FrozenNetwork(network)

    def _distances(
        self, images: Images, first: Int64[Tensor, " pair"], second: Int64[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        pairs = zip(torch.split(first, _PAIRS), torch.split(second, _PAIRS), strict=True)
        return torch.cat([self.network(images[a], images[b]).reshape(len(a)) for a, b in pairs])


class FeatureDiversity(LookDiversity):
    """`LookDiversity` as the Euclidean distance of extractor features, in the extractor's own unit.

    Args:
        extractor: images in [-1, 1] (batch, 3, height, width) to features (batch, num_features).
        name: of the extractor; `extractor.name` where None. The metric's name is "euclidean-" and this.
        num_features: width of the features; `extractor.num_features` where None.

    Raises:
        ConfigError: the extractor does not say its name or how wide its features are, or gives others.
        DataError: images that cannot be used; fewer than 2 of a mask; no mask at `compute()`.

    Source: our choice, for machines without LPIPS weights.
    """

    def __init__(self, extractor: nn.Module, name: str | None = None, *, num_features: int | None = None) -> None:
        named = NamedExtractor.of(extractor, name, num_features)
        super().__init__(f"euclidean-{named.name}")
        self.extractor = named

    def _distances(
        self, images: Images, first: Int64[Tensor, " pair"], second: Int64[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        rows = self.extractor.rows(images, "looks").double()
        return (rows[first] - rows[second]).square().sum(dim=1).sqrt()


def look_diversity(extractor: nn.Module, name: str | None = None) -> LookDiversity:
    """LPIPS diversity where LPIPS's weights are at hand, else the one in an extractor's features; `name` says which.

    Args:
        extractor: to fall back on.
        name: of the extractor; `extractor.name` where None.
    """
    perceptual = lpips_if_available()
    if perceptual is None:
        return FeatureDiversity(extractor, name)
    return PerceptualDiversity(perceptual.network.network, perceptual.name)
