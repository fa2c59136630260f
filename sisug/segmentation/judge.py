"""The judge: a trained segmenter, frozen, that scores layouts and gives the features of Fréchet distances."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sisug.common.fingerprint import fingerprint
from sisug.labels.label_sets import LabelSet
from sisug.segmentation.network import JudgeNetwork
from sisug.types import Images, Masks


class Judge(nn.Module):
    """A segmenter whose verdicts are comparable between runs: always in eval, never trained, known by its fingerprint.

    It reads images at the resolution that it was trained at; others are resized first, and masks come back at the
    images' own size.

    Args:
        network: with trained weights.
        labels: label set of its masks.
        name: appears in the names of metrics that rest on it, e.g. "avatars-judge-unet-v1".
        resolution: height and width of its training images, pixels; a multiple of 8.
    """

    def __init__(self, network: JudgeNetwork, labels: LabelSet, name: str, resolution: int) -> None:
        super().__init__()
        # Channels last: half as fast again on a CPU.
        self.network = network.to(memory_format=torch.channels_last)
        self.labels, self.name, self.resolution = labels, name, resolution
        self.fingerprint = fingerprint(network.state_dict())
        self.num_features = sum(network.stage_channels)
        super().requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Judge:
        """Stays in eval: statistics of the training data decide, not those of the images that are judged."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Judge:
        """Stays frozen; gradients still pass through to the images."""
        return super().requires_grad_(False)

    def forward(self, images: Images) -> Float[Tensor, "batch classes height width"]:
        """Logits of the classes at the images' own size.

        Args:
            images: in [-1, 1].
        """
        logits = self.network(self._resize(images))
        if logits.shape[-2:] != images.shape[-2:]:
            logits = F.interpolate(logits, images.shape[-2:], mode="bilinear")
        return logits

    @torch.no_grad()
    def segment(self, images: Images) -> Masks:
        """Masks in the numbers of ``labels``, at the images' own size.

        Args:
            images: in [-1, 1].
        """
        return self(images).argmax(dim=1)

    def features(self, images: Images) -> Float[Tensor, "batch feature"]:
        """Means of the encoder's feature maps over the image: the rows of a Fréchet distance.

        The fine stages respond to sharpness and noise, the coarse one to which parts there are and how they look.

        Args:
            images: in [-1, 1].

        Source: our choice, after Heusel et al. 2017, with our own extractor in the place of Inception.
        """
        return torch.cat([stage.mean(dim=(2, 3)) for stage in self.network.stages(self._resize(images))], dim=1)

    def _resize(self, images: Images) -> Float[Tensor, "batch 3 resized resized"]:
        size = (self.resolution, self.resolution)
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images, size, mode="bilinear", antialias=True)


class JudgeFeatures(nn.Module):
    """A judge's features as a plain extractor: maps images in [-1, 1] to rows, as torchmetrics' Fréchet distance asks.

    Args:
        judge: gives the features.
    """

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge
        self.num_features = judge.num_features
        self.name = judge.name

    def forward(self, images: Images) -> Float[Tensor, "batch feature"]:
        """Rows of features.

        Args:
            images: in [-1, 1].
        """
        return self.judge.features(images)
