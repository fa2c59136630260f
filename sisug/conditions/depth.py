"""Depth maps as conditions: near is bright; for drawn data the layers' order stands for depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sisug.conditions.condition import Condition, Encoded
from sisug.conditions.freehand import blur, scale_of, uniform
from sisug.conditions.labels import LabelSet
from sisug.conditions.lines import grey_16_bits
from sisug.conditions.pictures import Picture, check_mode, read_picture, rgba
from sisug.errors import ConfigError
from sisug.types import Images, Masks

LAYERS: Mapping[str, tuple[str, ...]] = {
    "avatars": (
        "background",
        "skin",
        "clothes",
        "mouth",
        "nose",
        "eyes",
        "eyebrows",
        "hair",
        "hat",
        "facial_hair",
        "accessories",
    )
}
"""Classes from far to near, by label set. For avatars: the order in which the style draws its parts, one over the
other (hair and hat are variants of one part)."""

SMOOTHEST = 1.0
"""Largest blur of training maps, standard deviation in pixels at 64: depth networks do not end sharply."""


class Depth(Condition):
    """Depth map in [0, 1]: 0 for the farthest point, 1 for the nearest.

    Values are taken as fractions of the file's own range (255 or 65535), so a layer has the same depth in every map.
    Maps that do not fill that range, such as those of sensors and networks of relative depth, need ``stretch``.

    Args:
        labels: classes of the masks; needed to extract, not to load.
        order: all classes from far to near; by default that of ``LAYERS`` for the label set.
        stretch: whether each map's smallest and largest value become 0 and 1, in training as in use.

    Raises:
        ConfigError: for an order that does not name every class once.
    """

    name = "depth"
    needs_masks = True

    def __init__(
        self, labels: LabelSet | None = None, *, order: Sequence[str] | None = None, stretch: bool = False
    ) -> None:
        super().__init__(labels)
        if order is None and labels is not None:
            order = LAYERS.get(labels.name)
        if order is not None and sorted(order) != sorted(self._labels_needed().classes):
            raise ConfigError(
                f"order of layers {', '.join(order)}",
                f"it must name each class once: {', '.join(self._labels_needed().classes)}",
                "name them all, from far to near",
            )
        self.order = None if order is None else tuple(order)
        self.stretch = stretch

    @property
    def options(self) -> dict[str, Any]:
        return {"order": None if self.order is None else list(self.order), "stretch": self.stretch}

    def extract(self, images: Images, masks: Masks | None, random: torch.Generator) -> Encoded:
        """Depth by the order of layers, slightly blurred at random; ignored pixels are far.

        Raises:
            ConfigError: without masks or an order of layers.
        """
        masks, labels = self._masks_needed(masks), self._labels_needed()
        if self.order is None:
            raise ConfigError(
                f"depth of label set {labels.name!r}",
                "nothing says which of its classes lie before which",
                "give `order`: all classes from far to near (" + ", ".join(labels.classes) + ")",
            )
        labels.check(masks)
        table = torch.zeros(256, device=masks.device)
        for rank, name in enumerate(self.order):
            table[labels.number(name)] = rank / (len(self.order) - 1)
        depth = table[masks][:, None]
        largest = SMOOTHEST * scale_of(masks)
        depth = blur(depth, uniform(random, 0.0, largest, masks), largest)
        return _stretched(depth) if self.stretch else depth.clamp(0, 1)

    def load(self, path: Path, size: int) -> Float[Tensor, "1 size size"]:
        picture = read_picture(path)
        check_mode(picture, also=("I;16", "I;16B", "I;16L", "I"))
        grey = grey_16_bits(picture) if picture.image.mode.startswith("I") else _grey_8_bits(picture)
        if grey.max() == grey.min():
            raise picture.refuse(
                f"has the same value {grey.max():.3f} everywhere (0 is black, 1 white)",
                "it says nothing about depth",
                "check the file; near is bright, far is dark",
            )
        depth = torch.from_numpy(grey)[None, None]
        depth = F.interpolate(depth, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return (_stretched(depth) if self.stretch else depth.clamp(0, 1))[0]


def _stretched(depth: Encoded) -> Encoded:
    """Each sample's own range as [0, 1]; a flat one becomes 0."""
    low, high = depth.amin(dim=(1, 2, 3), keepdim=True), depth.amax(dim=(1, 2, 3), keepdim=True)
    return (depth - low) / torch.where(high > low, high - low, 1)


def _grey_8_bits(picture: Picture) -> np.ndarray:
    pixels = rgba(picture)
    clear = int((pixels[..., 3] < 255).sum())
    if clear:
        raise picture.refuse(
            f"has {clear} pixels that are not opaque", "every pixel needs a depth", "flatten the picture first"
        )
    channels = pixels[..., :3].astype(np.int16)
    coloured = int((np.ptp(channels, axis=2) > 8).sum())
    if coloured:
        raise picture.refuse(
            f"has {coloured} coloured pixels",
            "depth is read from grey: near is bright. A photo, or a depth map shown in false colours, has none",
            "save the depth itself as a grey PNG of 8 or 16 bits",
        )
    return (channels.mean(axis=2) / 255).astype(np.float32)
