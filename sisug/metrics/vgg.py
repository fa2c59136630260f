"""A VGG-16 trunk as extractor and as perceptual distance, where Inception and LPIPS are not at hand (evaluation)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sisug.common.hed_wheel import CONVOLUTIONS, FILE_SHA256, hed_tensors
from sisug.types import Images

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of each stage."""

SIZE = 256
"""Height and width at which images are read, pixels."""

DESCRIBED = (2, 4)
"""Stages whose means are the features: texture at a few pixels, and parts. 768 values, so that 1,000 images do."""


class VGGTrunk(nn.Module):
    """The convolutions of VGG-16, with the weights that HED was fine-tuned to on BSDS500.

    Attributes:
        fingerprint: SHA-256 of the weights' file.

    Raises:
        CheckpointError: the weights cannot be fetched or are others.
        ConfigError: h5py is not installed.

    Source: K. Simonyan and A. Zisserman (2015); S. Xie and Z. Tu, "Holistically-nested edge detection" (2015).
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        tensors = hed_tensors()
        self.fingerprint = FILE_SHA256
        self.register_buffer("mean", tensors["mean"])
        self.stages = nn.ModuleList()
        for stage, ((before, width), count) in enumerate(zip(pairwise((3, *WIDTHS)), CONVOLUTIONS, strict=True)):
            layers: list[nn.Module] = [] if stage == 0 else [nn.MaxPool2d(2)]
            for number in range(count):
                layer = nn.Conv2d(before if number == 0 else width, width, 3, padding=1, device="meta")
                name = f"stages.{stage}.{number}"
                layer.load_state_dict({kind: tensors[f"{name}.{kind}"] for kind in ("weight", "bias")}, assign=True)
                layers += [layer, nn.ReLU()]
            self.stages.append(nn.Sequential(*layers))
        self.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, images: Images) -> list[Float[Tensor, "batch channel stage_height stage_width"]]:
        """Features after each stage, each position of length 1, so that no stage outweighs another.

        Args:
            images: in [-1, 1]; read at 256 px.
        """
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
        values = ((images + 1) * 127.5 - self.mean).contiguous(memory_format=torch.channels_last)
        features = []
        for stage in self.stages:
            values = stage(values)
            features.append(F.normalize(values, dim=1))
        return features


class VGGFeatures(nn.Module):
    """Means of two stages of the trunk over the image: the rows of a Fréchet distance of its own name, "vgg_hed".

    Attributes:
        name: of the extractor, part of the names of values.
        num_features: length of a row.
        fingerprint: SHA-256 of the weights' file.
        resize: how images are resized, for the protocol record.

    Raises:
        CheckpointError: the weights cannot be fetched or are others.
        ConfigError: h5py is not installed.

    Source: our choice, after M. Heusel et al. 2017. Not comparable with published FIDs.
    """

    name = "vgg_hed"
    num_features = sum(WIDTHS[stage] for stage in DESCRIBED)
    resize = f"bilinear with antialiasing to {SIZE} px"

    def __init__(self) -> None:
        super().__init__()
        self.trunk = VGGTrunk()
        self.fingerprint = self.trunk.fingerprint

    def forward(self, images: Images) -> Float[Tensor, "batch feature"]:
        """One row per image.

        Args:
            images: in [-1, 1], of any size.
        """
        stages = self.trunk(images)
        return torch.cat([stages[stage].mean(dim=(2, 3)) for stage in DESCRIBED], dim=1)


class VGGDistance(nn.Module):
    """How different two images look: the squared difference of the trunk's features, averaged over places and stages.

    To be scored by `PerceptualDistance(VGGDistance(), VGGDistance.name)`.

    Attributes:
        name: of the distance, part of the names of values.

    Raises:
        CheckpointError: the weights cannot be fetched or are others.
        ConfigError: h5py is not installed.

    Source: R. Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric" (2018), without
        its learned weights of channels; so not LPIPS, and not comparable with it.
    """

    name = "perceptual_vgg_hed"

    def __init__(self) -> None:
        super().__init__()
        self.trunk = VGGTrunk()

    def forward(self, images: Images, target: Images) -> Float[Tensor, " batch"]:
        """One distance per pair, 0 for equal images.

        Args:
            images: in [-1, 1].
            target: what they are compared with, in [-1, 1].
        """
        pairs = zip(self.trunk(images), self.trunk(target), strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]).mean(dim=0)
