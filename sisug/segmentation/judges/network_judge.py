"""Any segmentation network as a judge: resizing, normalisation and refusals around it (evaluation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from sisug.common.fingerprint import fingerprint
from sisug.common.torch_files.data import load_data
from sisug.errors import CheckpointError, ConfigError, DataError, check_local
from sisug.labels.label_files import read_label_set
from sisug.labels.label_sets import LabelSet
from sisug.metrics.guards import clean_images
from sisug.types import Images, Masks

HALVES = (0.5, 0.5, 0.5)
"""Mean and standard deviation that leave images in [-1, 1]."""


class NetworkJudge(nn.Module):
    """A network that gives logits of classes, frozen and in eval mode for good, as a judge.

    Args:
        network: maps images to logits (batch, class, height, width) of any size. Of several results the first counts
            (BiSeNet's), of a dict "out" (torchvision's) or "logits".
        labels: label set in the order of the network's classes: a name, a JSON file, or the set itself.
        name: appears in the names of metrics.
        resolution: height and width to which images are resized for the network, pixels; None for their own.
        mean: of the red, green and blue values, 0 to 1, that the network was trained with.
        std: their standard deviation.
        weights: file with the network's weights, a plain state dict (.safetensors, or .pth without code in it).

    Raises:
        CheckpointError: the weights cannot be read or do not fit.
        ConfigError: a resolution or normalisation that makes no sense.
        DataError: there is no such label set.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        labels: str | LabelSet,
        name: str,
        resolution: int | None = None,
        mean: Sequence[float] = HALVES,
        std: Sequence[float] = HALVES,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        if resolution is not None and resolution < 1:
            raise ConfigError(f"resolution {resolution}", "it is a number of pixels", "use that of the training images")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(
                f"mean {list(mean)} and std {list(std)}",
                "each has a value for red, green and blue, and std is above 0",
                "use those of the network's training",
            )
        self.labels = labels if isinstance(labels, LabelSet) else read_label_set(labels)
        self.name, self.resolution = name, resolution
        self.network = network
        if weights is not None:
            _load_weights(network, Path(weights).expanduser())
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None], persistent=False)
        self.fingerprint = fingerprint(network.state_dict())
        super().requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> NetworkJudge:
        """Stays in eval: statistics of the training data decide, not those of the images that are judged."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> NetworkJudge:
        """Stays frozen; gradients still pass through to the images."""
        return super().requires_grad_(False)

    @property
    def description(self) -> dict[str, Any]:
        """Everything that decides its verdicts, for protocol records."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "labels": self.labels.name,
            "resolution": self.resolution,
            "mean": [round(value, 6) for value in self.mean.flatten().tolist()],
            "std": [round(value, 6) for value in self.std.flatten().tolist()],
        }

    def forward(self, images: Images) -> Float[Tensor, "batch class height width"]:
        """Logits of the classes at the images' own size.

        Args:
            images: in [-1, 1].

        Raises:
            CheckpointError: the network gives another number of classes than the label set has.
        """
        pixels = (images + 1) / 2
        if self.resolution is not None and pixels.shape[-2:] != (self.resolution, self.resolution):
            pixels = F.interpolate(pixels, (self.resolution, self.resolution), mode="bilinear", antialias=True)
        logits = _first(self.network((pixels - self.mean) / self.std))
        if logits.dim() != 4 or logits.shape[1] != self.labels.num_classes:
            raise CheckpointError(
                f"the judge {self.name} gives results of the shape {tuple(logits.shape)}",
                f"label set {self.labels.name!r} has {self.labels.num_classes} classes, so that "
                f"(batch, {self.labels.num_classes}, height, width) is needed",
                "name the label set that the network was trained with",
            )
        if logits.shape[-2:] != images.shape[-2:]:
            logits = F.interpolate(logits, images.shape[-2:], mode="bilinear")
        return logits

    @torch.no_grad()
    def segment(self, images: Images) -> Masks:
        """Masks in the numbers of ``labels``, at the images' own size.

        Args:
            images: in [-1, 1].

        Raises:
            CheckpointError: the network's classes are not those of the label set.
            DataError: no images, or values that are not finite.
        """
        return self(judged_images(images)).argmax(dim=1)


def judged_images(images: Tensor) -> Images:
    """Images that a judge may see: at least one, finite, clamped to [-1, 1].

    Args:
        images: (batch, 3, height, width).

    Raises:
        DataError: none, or other values.
    """
    if not len(images):
        raise DataError("0 images to judge", "a score of nothing would mean nothing", "give at least one image")
    return clean_images(images, "images to judge")


def _first(result: Any) -> Tensor:
    if isinstance(result, Mapping):
        result = next((result[key] for key in ("out", "logits") if key in result), None)
    while isinstance(result, tuple | list) and result:
        result = result[0]
    if not isinstance(result, Tensor):
        raise CheckpointError(
            f"a judge's network gives a {type(result).__name__}",
            'logits are a tensor, the first of several, or the entry "out" or "logits" of a dict',
            "wrap the network in one that returns its logits",
        )
    return result


def _load_weights(network: nn.Module, path: Path) -> None:
    remedy = "give the weights of this very network: a state dict saved with safetensors or torch.save"
    check_local(path, "the judge's weights")
    if not path.is_file():
        raise CheckpointError(f"the judge's weights {path} cannot be read", "there is no such file", remedy)
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else load_data(path, "the judge's weights", remedy)
        network.load_state_dict(weights)
    except CheckpointError:
        raise
    except Exception as error:  # unpickling and load_state_dict raise half a dozen kinds
        reason = " ".join(str(error).split())[:300]  # torch lists every tensor, one a line
        raise CheckpointError(f"the judge's weights {path} cannot be read", reason, remedy) from error
