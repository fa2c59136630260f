"""The rearranger's adversary (stage 1): StyleGAN2's discriminator that may also see the layout an image should have."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sisug.errors import ConfigError
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
        pretrained: the generator's own discriminator to start from; None for a new one.

    Raises:
        ConfigError: one of another kind than StyleGAN2's is to see masks.
    """

    def __init__(self, channels: Mapping[int, int], clusters: int, pretrained: nn.Module | None = None) -> None:
        super().__init__()
        self.network: nn.Module = Discriminator(channels) if pretrained is None else pretrained
        self.label: nn.Embedding | None = None
        if clusters:
            if not isinstance(self.network, Discriminator):
                raise ConfigError(
                    f"mask_discriminator with the generator's own {type(self.network).__name__}",
                    "only StyleGAN2's discriminator can see masks",
                    "leave mask_discriminator out",
                )
            width = self.network.get_parameter(f"b{self.network.resolutions[0]}.conv0.weight").shape[1]
            self.label = nn.Embedding(clusters, width)
            if pretrained is not None:
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
        """Features after every block, of the image alone: a perceptual space.

        Raises:
            ConfigError: the generator's own discriminator is of another kind than StyleGAN2's.
        """
        if not isinstance(self.network, Discriminator):
            raise ConfigError(
                f"a perceptual loss with the generator's own {type(self.network).__name__}",
                "it compares features of StyleGAN2's discriminator",
                "set perceptual_weight to 0",
            )
        return self.network.features(images)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], mask: Int64[Tensor, "batch size size"]
    ) -> Float[Tensor, "batch 1"]:
        seen = () if self.label is None else (self.condition(mask, images.shape[2]),)
        logits: Tensor = self.network(images, *seen)
        return logits
