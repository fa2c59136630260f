"""PSNR and LPIPS between an image and its reconstruction: self-reconstruction (evaluation of stage 1)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.image import peak_signal_noise_ratio

from sisug.common.frozen_network import FrozenNetwork
from sisug.common.torch_files.data import load_data
from sisug.errors import DataError
from sisug.metrics._once import say_once
from sisug.metrics.guards import check_same_shape, clean_images
from sisug.types import Images

logger = logging.getLogger(__name__)

_CEILING_DB = 100.0


class _PairMean(Metric):
    """Mean over image pairs of a score of each pair; sums and counts are added over ranks."""

    is_differentiable = False
    full_state_update = False

    total: Tensor
    pairs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pairs", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, images: Images, target: Float[Tensor, "_batch 3 _height _width"]) -> None:
        """Add images in [-1, 1] and what they should be."""
        check_same_shape(images, target, "images and their targets")
        scores = self._score(clean_images(images, "images"), clean_images(target, "target images"))
        self.total += scores.sum(dtype=torch.float64)
        self.pairs += len(scores)

    def compute(self) -> Float[Tensor, ""]:
        """Mean over all pairs seen."""
        if not bool(self.pairs):
            raise DataError("no pair to score", "no images were given", "update the metric before compute()")
        return (self.total / self.pairs).float()

    def _score(self, images: Images, target: Images) -> Float[Tensor, " batch"]:
        raise NotImplementedError


class ReconstructionPSNR(_PairMean):
    """Peak signal-to-noise ratio in dB of images in [-1, 1] (peak-to-peak 2): the mean over images of each one's PSNR.

    Not the PSNR of the mean error, which is never higher. Both images are clamped to [-1, 1] first. Our choice: an
    image counts with 100 dB at most, so that a perfect one does not make the mean infinite.

    Raises:
        DataError: images that cannot be used, shapes that differ, no pair at `compute()`.
    """

    higher_is_better = True

    def _score(self, images: Images, target: Images) -> Float[Tensor, " batch"]:
        values = peak_signal_noise_ratio(images, target, data_range=2.0, reduction="none", dim=(1, 2, 3))
        return values.clamp_max(_CEILING_DB)


class PerceptualDistance(_PairMean):
    """Learned perceptual distance (LPIPS) between images in [-1, 1]: the mean over pairs. See `lpips_if_available`.

    Args:
        network: two batches of images in [-1, 1] to one distance a pair; frozen, and no part of the state_dict.
        name: of the network, for example "lpips-alex".

    Raises:
        DataError: images that cannot be used, shapes that differ, no pair at `compute()`.

    Source: R. Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric" (2018).
    """

    higher_is_better = False

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network = FrozenNetwork(network)
        self.name = name

    def _score(self, images: Images, target: Images) -> Float[Tensor, " batch"]:
        return self.network(images, target).reshape(len(images))


def lpips_if_available(backbone: Literal["alex", "vgg", "squeeze"] = "alex") -> PerceptualDistance | None:
    """LPIPS where its weights are at hand, else None; nothing is ever downloaded.

    torchmetrics brings the linear layers; the backbone's weights must lie in torch's hub folder, where torchvision
    puts them. Why the score is left out is said once in the log.

    Args:
        backbone: "alex" is the one to evaluate with; "vgg" and "squeeze" are the paper's other two.
    """
    from torchvision import models

    weights = {
        "alex": models.AlexNet_Weights,
        "vgg": models.VGG16_Weights,
        "squeeze": models.SqueezeNet1_1_Weights,
    }[backbone].DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    if not file.is_file():
        say_once(
            logger,
            f"LPIPS ({backbone}) is left out: the backbone weights {file} are not there. To have it, download "
            f"{weights.url} to that place.",
        )
        return None
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        load_data(file, "the backbone weights", "download them again")  # torchvision would run what is in it
        metric = LearnedPerceptualImagePatchSimilarity(net_type=backbone)
    except Exception as error:  # whatever unpickling a damaged file may raise
        say_once(
            logger,
            f"LPIPS ({backbone}) is left out: the backbone weights {file} cannot be read ({error}). Delete the file "
            f"and download {weights.url} again.",
        )
        return None
    return PerceptualDistance(metric.net, f"lpips-{backbone}")
