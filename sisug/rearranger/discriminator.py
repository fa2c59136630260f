"""The rearranger's adversary (stage 1): StyleGAN2's discriminator that may also see the layout an image should have."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sisug.generators import Discriminator


class MaskedDiscriminator(nn.Module):
    """Image, with or without a proxy mask, to one logit.

    A plain sample and its own proxy mask are a true pair; a rearranged image and its target must pass for one. That
    tells more than
    realism: parts must lie where the mask has them, also where clusters alone do not say so (our choice).
    Off by default: seeing the mask, it overpowered the rearranger in the one run that had it beside warped sources.

    Args:
        channels: resolution in pixels to channels, from 4 up to the image's.
        clusters: labels of the proxy masks; 0 sees the image alone.
        pretrained: the generator's own discriminator to start from; a new one where its file has none.
    """

    def __init__(self, channels: Mapping[int, int], clusters: int, pretrained: Discriminator | None = None) -> None:
        super().__init__()
        self.network = Discriminator(channels) if pretrained is None else pretrained
        width = self.network.get_parameter(f"b{self.network.resolutions[0]}.conv0.weight").shape[1]
        self.label = nn.Embedding(clusters, width) if clusters else None
        if self.label is not None and pretrained is not None:
            nn.init.zeros_(self.label.weight)  # at first it judges as it did

    def condition(
        self, mask: Int64[Tensor, "batch size size"], height: int
    ) -> Float[Tensor, "batch width height height"] | None:
        """The mask as features of the first block."""
        if self.label is None:
            return None
        return F.interpolate(self.label(mask).permute(0, 3, 1, 2), size=(height, height), mode="nearest")

    def features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch channel block_height block_width"]]:
        """Features after every block, of the image alone: a perceptual space."""
        return self.network.features(images)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], mask: Int64[Tensor, "batch size size"]
    ) -> Float[Tensor, "batch 1"]:
        logits: Tensor = self.network(images, self.condition(mask, images.shape[2]))
        return logits
