"""Depth maps as conditions: near is bright; of a depth network, or for drawn data by the order of the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sisug.common.frozen_network import FrozenNetwork
from sisug.conditions.condition import Condition, Encoded
from sisug.conditions.depth_network import DepthNetwork, LargerIs
from sisug.conditions.freehand import blur, scale_of, uniform
from sisug.conditions.lines import grey_16_bits
from sisug.errors import CheckpointError, ConfigError
from sisug.faces import LandmarkDepth
from sisug.labels.label_sets import LabelSet
from sisug.labels.pictures import Picture, check_mode, rgba
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

LEAST_RANGE = 0.25
"""Share of the range of 16 bits that a map fills; those of depth networks fill it. Our choice."""

SMOOTHEST = 1.0
"""Largest blur of training maps, standard deviation in pixels at 64: depth networks do not end sharply."""


LANDMARKS = "face-landmarks"
"""In the place of a network's name: depth by the landmarks of a face."""


class Depth(Condition):
    """Depth map in [0, 1]: 0 for the farthest point, 1 for the nearest.

    Values are taken as fractions of the file's own range (255 or 65535), so a layer has the same depth in every map.
    Maps that do not fill that range, such as those of sensors and networks of relative depth, need ``stretch``.

    Training maps come from masks and the order of their classes, or with ``model`` from a depth network, which needs no
    masks. The network is needed to extract only: a mapper's checkpoint names it, and works without.

    Args:
        labels: classes of the masks; needed to extract by their order, not to load.
        order: all classes from far to near; by default that of ``LAYERS`` for the label set.
        stretch: whether each map's smallest and largest value become 0 and 1, in training as in use; None for whether
            there is a network, whose depth has a scale of each image's own.
        model: depth network on the hub or in a folder, see ``sisug.conditions.depth_network``; "face-landmarks" for the
            depth of a face's landmarks, without such a network (see ``sisug.faces``); None for the order.
        revision: see ``DepthNetwork``.
        resolution: see ``DepthNetwork``.
        larger_is: see ``DepthNetwork``.
        fingerprint: SHA-256 of the weights that the network has to have; None for any, which is then kept in the
            checkpoint.

    Raises:
        ConfigError: for an order that does not name every class once, or options that contradict each other.
    """

    name = "depth"

    def __init__(
        self,
        labels: LabelSet | None = None,
        *,
        order: Sequence[str] | None = None,
        stretch: bool | None = None,
        model: str | None = None,
        revision: str | None = None,
        resolution: int | None = None,
        larger_is: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__(labels)
        network_options = {
            "revision": revision, "resolution": resolution, "larger_is": larger_is, "fingerprint": fingerprint
        }  # fmt: skip
        _check_options(model, order, stretch, network_options)
        if order is None and labels is not None and model is None:
            order = LAYERS.get(labels.name)
        if order is not None and sorted(order) != sorted(self._labels_needed().classes):
            raise ConfigError(
                f"order of layers {', '.join(order)}",
                f"it must name each class once: {', '.join(self._labels_needed().classes)}",
                "name them all, from far to near",
            )
        self.order = None if order is None else tuple(order)
        self.stretch = stretch if stretch is not None else model is not None
        self.needs_masks = model is None
        self.model, self.revision, self.resolution = model, revision, resolution
        self.larger_is, self.fingerprint = cast(LargerIs | None, larger_is), fingerprint
        self._network: FrozenNetwork | None = None

    @property
    def options(self) -> dict[str, Any]:
        if self.model is None:
            return {"order": None if self.order is None else list(self.order), "stretch": self.stretch}
        return {
            "model": self.model,
            "revision": self.revision,
            "resolution": self.resolution,
            "larger_is": self.larger_is,
            "fingerprint": self.fingerprint,
        }

    def prepare(self) -> None:
        if self._network is not None or self.model is None:
            return
        if self.model == LANDMARKS:
            network: DepthNetwork | LandmarkDepth = LandmarkDepth()
        else:
            network = DepthNetwork(self.model, self.revision, self.resolution, self.larger_is)
            self.larger_is = network.larger_is
        if self.fingerprint not in (None, network.fingerprint):
            raise CheckpointError(
                f"the depth network {self.model} has other weights than were asked for",
                f"their fingerprint is {network.fingerprint}, not {self.fingerprint}: it would see other depths",
                "name the revision that was used, or leave fingerprint out and train again",
            )
        self.fingerprint = network.fingerprint
        self._network = FrozenNetwork(network)

    def extract(self, images: Images, masks: Masks | None, random: torch.Generator) -> Encoded:
        """Depth of a network or by the order of layers, slightly blurred at random; ignored pixels are far.

        Raises:
            CheckpointError: the network cannot be loaded.
            ConfigError: without the package that loads networks, or without masks or an order of layers.
        """
        self.prepare()
        if self._network is not None:
            return _stretched(_blurred(self._network.to(images.device)(images.float()), random))
        return self._by_order(masks, random)

    def _by_order(self, masks: Masks | None, random: torch.Generator) -> Encoded:
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
        depth = _blurred(table[masks][:, None], random)
        return _stretched(depth) if self.stretch else depth.clamp(0, 1)

    def from_picture(self, picture: Picture, size: int) -> Float[Tensor, "1 size size"]:
        check_mode(picture, also=("I;16", "I;16B", "I;16L", "I"))
        grey = grey_16_bits(picture) if picture.image.mode.startswith("I") else _grey_8_bits(picture)
        if grey.max() == grey.min():
            raise picture.refuse(
                f"has the same value {grey.max():.3f} everywhere (0 is black, 1 white)",
                "it says nothing about depth",
                "check the file; near is bright, far is dark",
            )
        filled = float(grey.max() - grey.min())
        if picture.deep and filled < LEAST_RANGE:
            picture.warn(
                f"its values fill {filled:.0%} of their range ({round(grey.min() * 65535)} to "
                f"{round(grey.max() * 65535)} of 65535), as distances in millimeters do: near is small there. "
                "Near is bright here: turn such a map round and stretch it, so that the nearest point is white"
            )
        depth = torch.from_numpy(grey)[None, None]
        depth = F.interpolate(depth, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return (_stretched(depth) if self.stretch else depth.clamp(0, 1))[0]


def _check_options(
    model: str | None, order: Sequence[str] | None, stretch: bool | None, network_options: Mapping[str, Any]
) -> None:
    given = [name for name, value in network_options.items() if value is not None]
    if model is None and given:
        raise ConfigError(
            f"depth by the order of layers with {', '.join(given)}", "only networks have these", "name one with model"
        )
    if model is not None and (order is not None or stretch is False):
        raise ConfigError(
            f"the depth network {model} with " + ("an order of layers" if order is not None else "stretch false"),
            "it sees depth by itself, in a scale of each image's own",
            "leave that out, or leave model out",
        )
    own = [name for name in given if name != "fingerprint"]
    if model == LANDMARKS and own:
        raise ConfigError(
            f"depth by landmarks of a face with {', '.join(own)}",
            "only networks of the hub have these",
            "leave that out",
        )
    resolution, larger_is = network_options["resolution"], network_options["larger_is"]
    if resolution is not None and resolution < 1:
        raise ConfigError(f"resolution {resolution}", "it is a number of pixels", "leave it out for the network's own")
    if larger_is not in (None, "near", "far"):
        raise ConfigError(f"larger_is {larger_is!r}", "there are near and far", "choose one of these")


def _blurred(depth: Encoded, random: torch.Generator) -> Encoded:
    largest = SMOOTHEST * scale_of(depth)
    return blur(depth, uniform(random, 0.0, largest, depth), largest)


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
