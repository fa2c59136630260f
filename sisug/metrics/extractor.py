"""A feature extractor with a name, a width and a hash: what every distance between sets of images rests on."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from sisug.common.frozen_network import FrozenNetwork
from sisug.errors import ConfigError, DataError
from sisug.metrics.guards import clean_images
from sisug.types import Images

Rows: TypeAlias = Float[Tensor, "batch feature"]
"""Features of an image each."""


class NamedExtractor(FrozenNetwork):
    """Maps images in [-1, 1] to rows of features, and refuses whatever would make a meaningless number of them.

    Frozen, in eval, in full precision, and no part of a state_dict. Several scores may hold one and the same.

    Args:
        network: images in [-1, 1] (batch, 3, height, width) to features (batch, num_features).
        name: belongs into the name of every value made of the features; `network.name` where None.
        num_features: width of the features; `network.num_features` where None.

    Raises:
        ConfigError: the network does not say its name or how wide its features are, or gives others.
        DataError: images that cannot be used, features with NaN.
    """

    def __init__(self, network: nn.Module, name: str | None = None, num_features: int | None = None) -> None:
        name = getattr(network, "name", None) if name is None else name
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"the extractor {type(network).__name__} has no name",
                "a distance means nothing without the name of its features",
                "pass name=, or give the extractor an attribute name",
            )
        width = getattr(network, "num_features", None) if num_features is None else num_features
        if not isinstance(width, int) or width < 1:
            raise ConfigError(
                f"the extractor {name!r} has {width} features",
                "the sizes of the sums must be known before the first image, on every rank",
                "pass num_features=, or give the extractor an integer attribute num_features",
            )
        super().__init__(network)
        self.name = name
        self.num_features = width

    @classmethod
    def of(cls, network: nn.Module, name: str | None = None, num_features: int | None = None) -> NamedExtractor:
        """The network itself where it is a named extractor of that name already, else a new one around it."""
        if isinstance(network, cls) and name in (None, network.name) and num_features in (None, network.num_features):
            return network
        return cls(network, name, num_features)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights: the network's own `fingerprint` where it has one."""
        own = getattr(self.network, "fingerprint", None)
        if isinstance(own, str):
            return own
        digest = hashlib.sha256(type(self.network).__qualname__.encode())
        for name, value in sorted(self.network.state_dict().items()):
            values = value.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            digest.update(values.float().numpy().tobytes())
        return digest.hexdigest()

    def rows(self, images: Images | Rows, what: str) -> Rows:
        """Features of images, which are clamped to [-1, 1]; rows that this extractor gave before pass as they are.

        Args:
            images: to be described, or the rows of several scores' common pass through the extractor.
            what: how to call the images in an error.
        """
        return self(images if images.dim() == 2 else clean_images(images, what))

    def forward(self, *inputs: Tensor) -> Rows:
        if inputs[0].dim() == 2:
            rows = inputs[0].detach()
            if rows.shape[1] != self.num_features:
                raise ConfigError(
                    f"rows of {rows.shape[1]} features", f"{self.name!r} gives {self.num_features}", "pass its own rows"
                )
        else:
            rows = super().forward(*inputs)
            if rows.shape != (len(inputs[0]), self.num_features):
                raise ConfigError(
                    f"the extractor {self.name!r} gave features of the shape {tuple(rows.shape)}",
                    f"(batch, {self.num_features}) was expected",
                    "pool feature maps over space, or correct num_features",
                )
            if not bool(rows.isfinite().all()):
                raise DataError(
                    f"the extractor {self.name!r} gave features with NaN or infinity",
                    "its weights are damaged, or the images are of another kind than it was trained on",
                    "load the extractor again",
                )
            if rows.untyped_storage().nbytes() > rows.nbytes:  # a view: it would keep all that it was cut from
                rows = rows.clone()
        return rows
